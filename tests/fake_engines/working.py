"""Hidden states are the ids themselves, vectors are (length of the text, 1)."""

import os

import numpy as np


class Working:
    version = "1.0"

    def run_ids(self, input_ids, attention_mask):
        print("an engine may print whatever it likes")
        os.write(1, b"even past Python")
        return np.repeat((input_ids * attention_mask)[:, :, None], 4, axis=2).astype(np.float32)

    def encode(self, texts):
        return np.array([[len(text), 1] for text in texts], dtype=np.float32)

    def count_tokens(self, texts):
        return [len(text.split()) + 2 for text in texts]


def build(setup):
    setup.prepared.mkdir(parents=True, exist_ok=True)
    (setup.prepared / "built").touch()


def prepare(setup):
    assert os.environ["OMP_NUM_THREADS"] == str(setup.threads)
    return Working()
