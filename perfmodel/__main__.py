"""The command line, as `perfmodel` and as `python -m perfmodel`: Ctrl-C stops it quietly from the first moment on.

The first moment is some microseconds after Python has started itself, which takes some 10 ms: there it is Python that answers.
"""

STOPPED = 130  # exit code after Ctrl-C


def main() -> None:
    """Run the command. While the program is still being loaded, Ctrl-C ends it at once: there is nothing to keep yet."""
    try:
        import _signal as signal  # type: ignore[import-not-found]  # what `signal` wraps into enumerations, which load slowly
        import gc
        import os

        waits = (
            signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )  # else it is ignored, as of a job in the background
        gc.set_threshold(100_000)  # importing makes many objects and little garbage: passes over them cost a tenth of the start
        if waits:
            signal.signal(signal.SIGINT, lambda *_: os._exit(STOPPED))
        from perfmodel.commands.app import main as run

        if waits:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    except KeyboardInterrupt:
        raise SystemExit(STOPPED) from None
    run()


if __name__ == "__main__":
    main()
