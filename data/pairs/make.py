"""Makes `answers.json.zst`: what versions of a classifier answer to the held-out utterances of CLINC150.

    make.py

Needs PyTorch and the `zstd` command, and the stream beside it (`../clinc150/clinc150.jsonl.zst`). Each version is a
linear classifier over hashed words and pairs of words, trained by softmax regression on an own draw of the stream's traffic:
the first versions on little, the last ones on much. Same PyTorch, same bytes.
"""
import json
import os
import random
import subprocess
import zlib

import torch

FEATURES = 1 << 14
# Share of the traffic that each version was trained on, and the seed of its draw.
VERSIONS = [(0.10, 1), (0.14, 2), (0.20, 3), (0.20, 4), (0.28, 5), (0.28, 6), (0.40, 7), (0.40, 8), (0.55, 9),
            (0.55, 10), (0.75, 11), (0.75, 12), (1.00, 13), (1.00, 14)]


def features(prompt):
    words = ["^"] + "".join(c if c.isalnum() else " " for c in prompt.lower()).split() + ["$"]
    grams = words + [" ".join(pair) for pair in zip(words, words[1:])]
    return sorted({zlib.crc32(gram.encode()) % FEATURES for gram in grams})


def bags(rows):
    indices = [features(row["prompt"]) for row in rows]
    offsets = [0]
    for bag in indices[:-1]:
        offsets.append(offsets[-1] + len(bag))
    return torch.tensor([i for bag in indices for i in bag]), torch.tensor(offsets)


def train(rows, labels, seed):
    torch.manual_seed(seed)
    model = torch.nn.EmbeddingBag(FEATURES, len(labels), mode="sum")
    torch.nn.init.zeros_(model.weight)
    bias = torch.zeros(len(labels), requires_grad=True)
    optimizer = torch.optim.Adam([model.weight, bias], lr=0.03)
    order = random.Random(seed)
    for _ in range(8):
        order.shuffle(rows)
        for start in range(0, len(rows), 256):
            batch = rows[start : start + 256]
            target = torch.tensor([labels[row["reference"]] for row in batch])
            loss = torch.nn.functional.cross_entropy(model(*bags(batch)) + bias, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model, bias


def main():
    torch.set_num_threads(1)
    here = os.path.dirname(os.path.abspath(__file__))
    stream = os.path.join(here, "..", "clinc150", "clinc150.jsonl.zst")
    text = subprocess.run(["zstd", "-dc", stream], check=True, capture_output=True, text=True).stdout
    rows = [json.loads(line) for line in text.splitlines()]
    held_out = [row for row in rows if row.get("held_out")]
    traffic = [row for row in rows if not row.get("held_out")]
    names = sorted({row["reference"] for row in rows})
    labels = {name: at for at, name in enumerate(names)}
    versions = []
    for share, seed in VERSIONS:
        drawn = random.Random(seed).sample(traffic, int(share * len(traffic)))
        model, bias = train(drawn, labels, seed)
        with torch.no_grad():
            answers = (model(*bags(held_out)) + bias).argmax(1).tolist()
        right = sum(a == labels[row["reference"]] for a, row in zip(answers, held_out)) / len(held_out)
        print(f"share {share}, seed {seed}: {right:.4f}")
        versions.append(answers)
    tasks = sorted({row["task"] for row in held_out})
    recorded = {
        "labels": names,
        "tasks": tasks,
        "task": [tasks.index(row["task"]) for row in held_out],
        "reference": [labels[row["reference"]] for row in held_out],
        "versions": versions,
    }
    target = os.path.join(here, "answers.json.zst")
    packed = json.dumps(recorded, separators=(",", ":"))
    subprocess.run(["zstd", "-19", "-q", "-f", "-o", target], input=packed.encode(), check=True)
    print(f"{len(held_out)} utterances, {len(versions)} versions, {os.path.getsize(target)} bytes")


if __name__ == "__main__":
    main()
