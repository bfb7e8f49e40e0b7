"""Writes golden.json: what transformers' apply_chat_template makes of the templates in this folder; a conversation
that a template refuses has its words instead of a text.

Needs transformers 5 and tokenizers: `python golden.py`. `strftime_now` is fixed to 26 Nov 2026 by replacing
transformers' clock, as the Rust test fixes its own.
"""
import datetime
import json
import pathlib

from jinja2.exceptions import TemplateError
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

FOLDER = pathlib.Path(__file__).parent


class Fixed(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 11, 26, 12, 0, 0)


chat_template_utils.datetime = Fixed

turn = lambda role, content: {"role": role, "content": content}
CONVERSATIONS = [
    [turn("user", "Hello")],
    [turn("system", "Be  brief. "), turn("user", " What is 2+2?\n")],
    [turn("user", "a"), turn("assistant", "b"), turn("user", "c"), turn("assistant", "d")],
    [turn("system", "s"), turn("user", "q"), turn("assistant", "<think>\nhm\n</think>\n\nanswer")],
    [turn("user", "weather?"), turn("assistant", "calling"), turn("tool", '{"t": "21 °C <ok>"}'),
     turn("tool", "two"), turn("user", "Grüße 👋\t'quoted' & \"double\"")],
]


def main():
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE()), bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    golden = []
    for name in ("llama3", "chatml", "qwen3", "glm4", "mistral"):
        template = (FOLDER / f"{name}.jinja").read_text()
        for messages in CONVERSATIONS:
            for generation in (False, True):
                case = dict(template=name, messages=messages, generation=generation)
                try:
                    case["text"] = tokenizer.apply_chat_template(
                        messages, chat_template=template, tokenize=False, add_generation_prompt=generation)
                except TemplateError as refusal:
                    case["refusal"] = str(refusal)
                golden.append(case)
    (FOLDER / "golden.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")


main()
