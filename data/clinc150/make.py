"""Makes `clinc150.jsonl.zst`, the stream that `autoglm demo` plays, from CLINC150's own files.

    make.py FOLDER [SEED]

FOLDER holds `domains.json` and either `data_full.json` (as in github.com/clinc/oos-eval, folder `data`) or
`data_train_val.json` (the same without the test part, which is not used). Needs the `zstd` command. The same
files and the same seed give the same bytes of JSON.
"""
import json
import os
import random
import subprocess
import sys


def normalised(text):
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def lines(data, domains, seed):
    """Domain after domain; first its train part, then its validation part as held out, each shuffled."""
    order = random.Random(seed)
    domain_of = {intent: domain for domain, intents in domains.items() for intent in intents}
    held_out_prompts = {normalised(prompt) for prompt, _ in data["val"]}
    for domain in domains:
        for part in ("train", "val"):
            rows = [row for row in data[part] if domain_of[row[1]] == domain]
            if part == "train":
                rows = [row for row in rows if normalised(row[0]) not in held_out_prompts]
            order.shuffle(rows)
            for prompt, intent in rows:
                line = {"prompt": prompt, "reference": intent.replace("_", " "), "task": domain}
                if part == "val":
                    line["held_out"] = True
                yield json.dumps(line, ensure_ascii=False)


def main():
    folder, seed = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 150
    full = os.path.join(folder, "data_full.json")
    path = full if os.path.exists(full) else os.path.join(folder, "data_train_val.json")
    with open(path) as file:
        data = json.load(file)
    with open(os.path.join(folder, "domains.json")) as file:
        domains = json.load(file)
    text = "".join(line + "\n" for line in lines(data, domains, seed))
    target = os.path.join(os.path.dirname(os.path.abspath(__file__)), "clinc150.jsonl.zst")
    subprocess.run(["zstd", "-19", "-q", "-f", "-o", target], input=text.encode(), check=True)
    print(f"{text.count(chr(10))} lines, {len(text)} characters, {os.path.getsize(target)} bytes in {target}")


if __name__ == "__main__":
    main()
