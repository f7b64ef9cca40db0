"""A corpus that is built by many machines: shards as tasks of Ray, and the store that they make together."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import bertfast
from bertfast.arguments import is_int
from bertfast.distributed.cluster import connect
from bertfast.distributed.shard_folder import ShardFolder, Work
from bertfast.errors import ArgumentError, CorpusError
from bertfast.file_progress import StatusLine, remaining
from bertfast.pretraining.build_arguments import check_shard
from bertfast.pretraining.build_job import BuildJob, BuildOptions, files_for, some, tokenizer_of
from bertfast.pretraining.corpus import Corpus, merge_corpora
from bertfast.pretraining.inputs import InputFile, given_paths
from bertfast.pretraining.segmentation import Documents, Segmenter, Splitter
from bertfast.pretraining.store_files import (
    PathLike,
    check_outside,
    refuse_finished,
    remove_stores,
)
from bertfast.pretraining.tokenizer_record import tokenizer_record, word_starts_of
from bertfast.progress import is_shown
from bertfast.text_files import shown_path
from bertfast.tokenizer import Tokenizer

_SMALLEST, _LARGEST = 8 << 20, 1 << 30
"""Bytes of a shard: less is not worth a task, more is much to lose with a machine."""
_ROUNDS = 4
