"""The console script: run one command, print what it returns, turn every error into one line and a status."""

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TextIO

from cyclopts import CycloptsError

from netfit.errors import ArtifactError, NetfitError

from ._app import app
from ._output import Output

__all__ = ["main"]

FINE, FAILED, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``netfit`` with these arguments.

    Args:
        argv: words after the program's name; those of the process when None.

    Returns:
        The exit status: 0 fine, 1 the job failed, 2 bad input, 130 interrupted.

    >>> main(["env", "--jsno"])
    2
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        return _run([word for word in words if word != "--debug"])
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _discard_output()
        return BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as e:
        if debug:
            traceback.print_exc()
        return _say(e)


def _run(words: list[str]) -> int:
    command, bound, _ = app.parse_args(words, print_error=False, exit_on_error=False)
    if command.__module__.startswith("cyclopts"):  # --help and --version print by themselves
        command(*bound.args, **bound.kwargs)
        return FINE
    with contextlib.redirect_stdout(sys.stderr):  # a user's model may print; only the result may go to stdout
        output = command(*bound.args, **bound.kwargs)
    assert isinstance(output, Output)
    try:
        _write(sys.stdout, output.text)
    except BrokenPipeError:
        raise
    except OSError as e:
        _discard_output()
        raise ArtifactError(f"cannot write the result to standard output: {e.strerror or e}") from e
    return FINE if output.error is None else _say(output.error)


def _say(error: BaseException) -> int:
    """Print an error as one line; returns the exit status it stands for."""
    text = " ".join(str(error).split())
    if isinstance(error, NetfitError):
        status = error.exit_status
    elif isinstance(error, CycloptsError):
        status = BAD_INPUT
    elif isinstance(error, KeyboardInterrupt):
        status, text = INTERRUPTED, f"interrupted{text and '; '}{text}"
    else:
        status = FAILED
        text = f"bug: {type(error).__name__}: {text or 'no message'}; --debug shows the traceback, please report it"
    with contextlib.suppress(OSError):  # nobody listens: the status still tells
        _write(sys.stderr, f"netfit: {text}")
    return status


def _discard_output() -> None:
    """Let what is still buffered go nowhere: it must not fail again when Python exits."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write(stream: TextIO, text: str) -> None:
    """Write a text also where the terminal cannot show all of its characters."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()
