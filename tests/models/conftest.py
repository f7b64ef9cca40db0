from __future__ import annotations

import numpy as np
import torch

from bertfast import _bertfast


def numpy_attention(q, k, v, key_mask, scale, num_threads):
    out = np.empty(q.shape, np.float32)
    for b in range(len(q)):
        keep = slice(None) if key_mask is None else key_mask[b]
        scores = q[b].astype(np.float64) @ k[b][:, keep].astype(np.float64).swapaxes(-1, -2) * scale
        out[b] = torch.from_numpy(scores).softmax(-1).numpy() @ v[b][:, keep]
    return out


if not hasattr(_bertfast, "attention"):
    _bertfast.attention = numpy_attention
