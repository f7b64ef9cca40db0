"""The command ``bertfast``: encode files, predict, pack models, show what is installed, compare engines.

A user's mistake is one line on standard error and exit status 2; Ctrl-C is 130; a traceback is a bug.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bertfast.command_options import add_engine, add_num_threads, positive
from bertfast.errors import BertFastError, TruncationWarning
from bertfast.ray_arguments import add_cluster, check_one_machine, run_files, summary

# Nothing else at the top: `bertfast --help` must not wait for numpy, and each command imports what it needs.

USER_ERROR = 2
INTERRUPTED = 130
TERMINATED = 143


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: the arguments, without the program's name; those of the process by default.

    Returns:
        The exit status.

    Example:
        >>> main(["info"])
        0
    """
    args = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings(), _orderly_termination():
            warnings.showwarning = _show_warning
            status: int = args.run(args)
            sys.stdout.flush()
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing left to say, and nothing to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED
    except (BertFastError, OSError, ImportError) as error:
        _complain(f"error: {_one_line(error)}")
        return USER_ERROR
    return status


@contextlib.contextmanager
def _orderly_termination() -> Iterator[None]:
    """Within it ``kill`` unwinds the stack, so that half-written files and worker processes go away."""
    asked = False

    def leave(*_: object) -> None:
        nonlocal asked
        asked = True
        sys.exit(TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except SystemExit:
        if asked:
            # Ray, if it is what was interrupted, has made another status of it.
            raise SystemExit(TERMINATED) from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bertfast", description="BERT on CPU, fast: from text to vectors.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.set_defaults(run=lambda args: _version() if args.version else _usage(parser))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_encode(commands.add_parser("encode", help="turn the texts of a file into vectors (.npy)"))
    _add_predict(commands.add_parser("predict", help="do a task for every line of a file (JSON lines)"))
    _add_quantize(
        commands.add_parser("quantize", help="pack a model into int8, with a report of its accuracy")
    )
    _add_vocab(commands.add_parser("vocab", help="train a vocabulary"))
    _add_corpus(
        commands.add_parser("corpus", help="token stores for pretraining: build, merge, show, export")
    )
    _add_pretrain(
        commands.add_parser("pretrain", help="train a model on a token store (one or several processes)")
    )
    _add_finetune(
        commands.add_parser("finetune", help="train a model for a task: labels, tags, answers to questions")
    )
    _add_info(commands.add_parser("info", help="show version, instruction set, threads, and a model"))
    _add_bench(
        commands.add_parser("bench", help="measure bertfast beside the other engines that are installed")
    )
    return parser


def _add_encode(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes one vector per line of FILE, in its order, as a float32 array that numpy.load reads. "
        "The output appears whole or not at all. Memory does not grow with the file."
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a Hugging Face folder, or the name of a model on the hub")
    add(
        "file",
        metavar="FILE",
        nargs="+",
        help="texts, one per line, UTF-8, plain, gzip or zstd; - reads standard input",
    )
    add("-o", "--output", metavar="OUT", required=True, help="the .npy file to write")
    add("--field", metavar="NAME", help="every line is a JSON object, and the text is its field NAME")
    add("--normalize", action="store_true", help="scale every vector to length 1")
    add("--prompt-name", metavar="NAME", help="which prompt of the model to put before every text")
    add_engine(parser)
    add("--batch-tokens", metavar="N", type=positive, help="tokens per step (default: chosen by the encoder)")
    add("--quiet", action="store_true", help="no progress and no summary")
    add_cluster(parser)
    parser.set_defaults(run=_encode)


def _add_predict(parser: argparse.ArgumentParser) -> None:
    from bertfast import predict_command

    predict_command.add_arguments(parser)
    parser.set_defaults(run=predict_command.main)


def _add_quantize(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes a folder that loads at once and shares its memory among processes, and reports how far its "
        "vectors are from those in float32. Layers fall back from int8 to bfloat16 until the targets are met."
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a Hugging Face folder, or the name of a model on the hub")
    add("-o", "--output", metavar="DIR", required=True, help="the folder to make")
    add("--dtype", choices=("int8", "bfloat16", "float32"), default="int8", help="default: int8")
    add(
        "--texts",
        metavar="FILE",
        help="texts to measure on, one per line (default: made from the vocabulary)",
    )
    add("--field", metavar="NAME", help="every line is a JSON object, and the text is its field NAME")
    add("--mean-cosine", metavar="X", type=float, default=0.999, help="target, default: 0.999")
    add("--min-cosine", metavar="X", type=float, default=0.995, help="target, default: 0.995")
    add_num_threads(parser)
    add("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=_quantize)


def _add_vocab(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=lambda args: _usage(parser))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    train = commands.add_parser("train", help="learn a vocabulary from texts")
    train.description = (
        "Writes tokenizer.json and tokenizer_config.json (and vocab.txt for wordpiece) into a folder that "
        "transformers and bertfast open."
    )
    add = train.add_argument
    add("files", metavar="FILE", nargs="+", help="texts, one per line, UTF-8, plain, gzip or zstd")
    add("-o", "--output", metavar="DIR", required=True, help="the folder to write into")
    add(
        "--type", choices=("wordpiece", "byte-bpe", "unigram"), default="wordpiece", help="default: wordpiece"
    )
    add("--size", metavar="N", type=positive, default=30522, help="tokens, default: 30522")
    add("--cased", action="store_true", help="keep capital letters and accents (byte-bpe always does)")
    add("--min-frequency", metavar="N", type=positive, default=2, help="of pairs to be joined, default: 2")
    add("--max-length", metavar="N", type=positive, default=512, help="of the model's input, default: 512")
    add("--field", metavar="NAME", help="every line is a JSON object, and the text is its field NAME")
    add("--quiet", action="store_true", help="no progress and no summary")
    train.set_defaults(run=_vocab_train)


def _add_corpus(parser: argparse.ArgumentParser) -> None:
    from bertfast import corpus_command

    corpus_command.add_arguments(parser)


def _add_pretrain(parser: argparse.ArgumentParser) -> None:
    from bertfast import pretrain_command

    pretrain_command.add_arguments(parser)


def _add_finetune(parser: argparse.ArgumentParser) -> None:
    from bertfast import finetune_command

    finetune_command.add_arguments(parser)


def _add_info(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help="a Hugging Face folder, or the name of a model on the hub")
    add_engine(parser)
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_info)


def _add_bench(parser: argparse.ArgumentParser) -> None:
    from bertfast.bench import options

    parser.description = (
        "Runs every engine in a process of its own, in turns, on the same weights and threads."
    )
    options.add_arguments(parser)
    parser.set_defaults(run=_bench)


def _version() -> int:
    import bertfast

    print(f"bertfast {bertfast.__version__}")
    return 0


def _usage(parser: argparse.ArgumentParser) -> int:
    parser.print_help(sys.stderr)
    return USER_ERROR


def _encode(args: argparse.Namespace) -> int:
    if args.ray is not None:
        return _encode_on_cluster(args)
    check_one_machine(args)
    from bertfast.file_progress import FileProgress
    from bertfast.npy_writer import NpyWriter
    from bertfast.text_files import TextFile

    # The cheap mistakes come to light before the model is loaded.
    with TextFile(args.file, args.field) as texts, NpyWriter(args.output) as writer:
        from bertfast import Encoder

        encoder = Encoder.from_pretrained(
            args.model, dtype=args.dtype, isa=args.isa, num_threads=args.num_threads
        )
        writer.set_dimensions(encoder.get_sentence_embedding_dimension())
        # The encoder warns at the first text that it cuts off; here they are counted to the end.
        warnings.simplefilter("ignore", TruncationWarning)
        progress = FileProgress(texts, args.quiet)
        for vectors in encoder.encode_iter(
            progress.count(texts),
            prompt_name=args.prompt_name,
            normalize_embeddings=args.normalize,
            batch_tokens=args.batch_tokens,
        ):
            writer.write(vectors)
            progress.show(writer.rows)
        writer.commit()
    progress.finish(writer.rows, f"{args.output} ({writer.rows}, {writer.dimensions}) float32")
    cut = encoder.info()["truncated_texts"]
    if cut:
        _complain(f"warning: {cut:,} texts are longer than {encoder.max_seq_length} tokens and were cut off")
    return 0


def _encode_on_cluster(args: argparse.Namespace) -> int:
    from bertfast.file_progress import StatusLine

    line = StatusLine(args.quiet)
    options = {"normalize_embeddings": True} if args.normalize else {}
    if args.prompt_name is not None:
        options["prompt_name"] = args.prompt_name
    totals = run_files(
        args,
        task="vectors",
        columns={"text": args.field or "text"},
        output_column="embedding",
        json=args.field is not None,
        options=options,
    )
    line.say(summary(totals, args.output, line.elapsed))
    if totals.truncated:
        _complain(f"warning: {totals.truncated:,} texts are longer than the model takes and were cut off")
    return 0


def _quantize(args: argparse.Namespace) -> int:
    from bertfast.text_files import TextFile

    with contextlib.ExitStack() as files:
        texts = None if args.texts is None else files.enter_context(TextFile(args.texts, args.field))
        from bertfast.quantize import quantize

        warnings.simplefilter("ignore", TruncationWarning)
        report = quantize(
            args.model,
            args.output,
            dtype=args.dtype,
            texts=texts,
            texts_from=f"from {args.texts}",
            mean_cosine=args.mean_cosine,
            min_cosine=args.min_cosine,
            num_threads=args.num_threads,
        )
    print(json.dumps(report.as_dict(), indent=2, ensure_ascii=False) if args.json else report)
    return 0


def _vocab_train(args: argparse.Namespace) -> int:
    from bertfast.text_files import TextFile
    from bertfast.vocabulary import make_vocabulary_folder, save_vocabulary, train_vocabulary

    with contextlib.ExitStack() as stack:
        # All are opened first: a name that is wrong is found before the work begins.
        files = [stack.enter_context(TextFile(path, args.field)) for path in args.files]
        make_vocabulary_folder(args.output)
        tokenizer = train_vocabulary(
            (text for file in files for text in file),
            kind=args.type,
            size=args.size,
            lowercase=not args.cased,
            min_frequency=args.min_frequency,
            show_progress=not args.quiet and sys.stderr.isatty(),
        )
    save_vocabulary(
        tokenizer, args.output, kind=args.type, lowercase=not args.cased, max_length=args.max_length
    )
    if not args.quiet:
        print(f"{tokenizer.get_vocab_size()} tokens ({args.type}) in {args.output}", file=sys.stderr)
    return 0


def _info(args: argparse.Namespace) -> int:
    import bertfast

    facts: dict[str, Any] = {"bertfast": bertfast.info()}
    if args.model is not None:
        encoder = bertfast.Encoder.from_pretrained(
            args.model, dtype=args.dtype, isa=args.isa, num_threads=args.num_threads
        )
        facts["model"] = {**encoder.info(), "prompts": encoder.prompts}
    print(json.dumps(facts, indent=2, ensure_ascii=False, default=str) if args.json else _readable(facts))
    return 0


def _bench(args: argparse.Namespace) -> int:
    from bertfast.bench import command

    return command.main(args)


def _readable(facts: Mapping[str, Mapping[str, Any]]) -> str:
    """Sections of aligned ``name  value`` lines."""
    lines: list[str] = []
    for section, entries in facts.items():
        width = max((len(name) for name in entries), default=0)
        lines += [section, *(f"  {name.ljust(width)}  {_value(value)}" for name, value in entries.items())]
    return "\n".join(lines)


def _value(value: Any) -> str:
    if value is None or value in ([], {}, ()):
        return "none"
    if value == "":
        return "(empty)"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_value(entry)}" for name, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    _complain(f"warning: {_one_line(message)}")


def _one_line(error: BaseException | str) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _complain(text: str) -> None:
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(f"{clear}bertfast: {text}", file=sys.stderr)
