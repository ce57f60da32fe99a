"""What a machine, a shell or a person may do to a command, each as a shell writes it: "$@" is the command.

$PLACE is the file that -o names, $SOON a share of the seconds that the command takes when nothing disturbs it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

OLD: Final = "what was there before\n"
ALONE: Final = 'exec "$@"'
READ_ONLY: Final = 'unshare -m bash -c \'mount --bind . . && mount -o remount,ro,bind . && cd "$PWD" && exec "$@"\' bash "$@"'
FULL: Final = """mkdir full && unshare -m bash -c '
mount -t tmpfs -o size=16k none full && printf "what was there before\\n" > full/a && cp full/a before
mv full/a "full/$PLACE" && head -c 100000 /dev/zero > full/fill 2> /dev/null
"$@"; code=$?; cp "full/$PLACE" "$PLACE"; ls -A full > left; exit $code' bash "$@" """
NARROW: Final = '{ "$1" -c "import os; os.set_blocking(1, False)"; "$@"; } | { sleep 3; cat; }; exit ${PIPESTATUS[0]}'
AT_ONCE: Final = '"$@" > /dev/null 2>&1 & "$@"; code=$?; wait; exit $code'
INTERRUPTS: Final = ("0.002", "0.01", "0.02", "0.03", "0.05", "0.1", "0.2", "$SOON", "$LATE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A condition, and what it leaves of what the command says otherwise."""

    name: str
    script: str
    same: bool = False  # exit code and standard output are those of a quiet machine
    codes: tuple[int, ...] = ()  # exit codes beside that of a quiet machine, with one sentence
    writes: bool = False  # the command is given -o $PLACE
    may_be_unheard: bool = False  # standard error goes nowhere
    interrupts: bool = False  # Ctrl-C may meet Python before perfmodel
    needs_root: bool = False  # mounts, in a name space of its own
    unread: bool = False  # what is written reaches nobody
    kept: str = ""  # what $PLACE holds afterwards where the command failed


def exported(name: str, *settings: str, same: bool = True) -> Condition:
    """The command with some of its environment set."""
    return Condition(name=name, script=f"export {' '.join(settings)}; {ALONE}", same=same)


HARMLESS: Final = (
    Condition(name="no HOME", script=f"unset HOME; {ALONE}", same=True),
    exported("a HOME that cannot be written", "HOME=/proc/none"),
    exported("a HOME that is no folder", "HOME=/dev/null"),
    Condition(name="no TERM", script=f"unset TERM; {ALONE}", same=True),
    exported("a dumb terminal", "TERM=dumb"),
    exported("an unknown terminal", "TERM=none-such"),
    exported("ASCII alone", "LC_ALL=C", "LANG=C", "PYTHONUTF8=0", "PYTHONCOERCECLOCALE=0", same=False),
    Condition(name="a locale that is none", script='exec env LC_ALL=xx_YY.UTF-8 "$@"', same=True),
    exported("output in Latin-1", "PYTHONIOENCODING=latin-1", same=False),
    exported("20 columns", "COLUMNS=20", same=False),
    exported("80 columns", "COLUMNS=80"),
    exported("120 columns", "COLUMNS=120", same=False),
    exported("a word for columns", "COLUMNS=wide"),
    exported("no colour", "NO_COLOR=1"),
    exported("colour", "FORCE_COLOR=1", same=False),
    exported("warnings as errors", "PYTHONWARNINGS=error"),
    exported("other hashes", "PYTHONHASHSEED=7"),
    exported("no docstrings", "PYTHONOPTIMIZE=2", same=False),
    exported("no compiled files", "PYTHONPYCACHEPREFIX=/proc/none"),
    exported("development mode", "PYTHONDEVMODE=1"),
    exported("a time zone that is none", "TZ=Nowhere/None"),
    exported("no folder for temporary files", "TMPDIR=/proc/none"),
    Condition(
        name="hardly any environment",
        script='exec env -i PYTHONPATH="$PYTHONPATH" FAULT="$FAULT" "$@"',
        same=True,
    ),
    Condition(name="closed standard input", script='exec "$@" <&-', same=True),
    Condition(name="an endless standard input", script='exec "$@" < /dev/zero', same=True),
    Condition(name="few open files", script=f"ulimit -n 64; {ALONE}", same=True),
    Condition(name="Ctrl-C that is ignored", script='trap "" INT; (sleep $SOON; kill -INT $$) & exec "$@"', same=True),
    Condition(name="a hang-up that is ignored", script='trap "" HUP; (sleep $SOON; kill -HUP $$) & exec "$@"', same=True),
    Condition(name="a stop and a go", script='(sleep $SOON; kill -STOP $$; sleep 0.3; kill -CONT $$) & exec "$@"', same=True),
    Condition(name="a port in use", script=f"export MASTER_ADDR=127.0.0.1 MASTER_PORT=1; {ALONE}", same=True),
    Condition(name="a folder that is gone", script='mkdir gone && cd gone && rmdir ../gone && exec "$@"', codes=(2, 4)),
    Condition(name="a folder that cannot be written", script=READ_ONLY, codes=(2, 4), needs_root=True),
)
STREAMS: Final = (
    Condition(name="closed standard output", script='exec "$@" >&-', codes=(2,)),
    Condition(name="closed standard error", script='exec "$@" 2>&-', same=True, may_be_unheard=True),
    Condition(name="closed streams", script='exec "$@" <&- >&- 2>&-', codes=(2,), may_be_unheard=True),
    Condition(name="a full disk behind standard output", script='exec "$@" > /dev/full', codes=(4,)),
    Condition(name="a full disk behind standard error", script='exec "$@" 2> /dev/full', same=True, may_be_unheard=True),
    Condition(name="full disks behind both", script='exec "$@" > /dev/full 2>&1', codes=(4,), may_be_unheard=True),
    Condition(name="standard output that is only read", script='exec "$@" 1< /dev/null', codes=(2, 4)),
    Condition(name="one line that is read", script='"$@" | head -1; exit ${PIPESTATUS[0]}'),
    Condition(name="nobody who reads", script='"$@" | true; exit ${PIPESTATUS[0]}'),
    Condition(name="nobody who reads anything", script='"$@" 2>&1 | true; exit ${PIPESTATUS[0]}', may_be_unheard=True),
    Condition(name="a slow reader that nobody waits for", script=NARROW, same=True),
)
OUTPUTS: Final = (
    Condition(name="a new file", script=ALONE, writes=True),
    Condition(name="an old file", script=f"echo 'what was there before' > $PLACE; {ALONE}", writes=True, kept=OLD),
    Condition(name="a link to itself", script=f"ln -s $PLACE $PLACE; {ALONE}", writes=True, codes=(2,)),
    Condition(name="a link to what is not there", script=f"ln -s elsewhere $PLACE; {ALONE}", writes=True),
    Condition(name="a link into no folder", script=f"ln -s none/elsewhere $PLACE; {ALONE}", writes=True, codes=(2,)),
    Condition(name="a folder in its place", script=f"mkdir $PLACE; {ALONE}", writes=True, codes=(2,)),
    Condition(name="a full device in its place", script=f"ln -s /dev/full $PLACE; {ALONE}", writes=True, codes=(4,)),
    Condition(name="a pipe that is read", writes=True,
              script='mkfifo $PLACE; cat $PLACE > read & "$@"; code=$?; wait; mv read $PLACE; exit $code'),
    Condition(name="a pipe whose reader leaves", script='mkfifo $PLACE; true < $PLACE & "$@"; code=$?; wait; exit $code',
              writes=True, codes=(2, 4), unread=True),
    Condition(name="a full disk", script=FULL, writes=True, codes=(4,), needs_root=True, kept=OLD),
    Condition(name="two writers", script=AT_ONCE, writes=True),
    *(
        Condition(
            name=f"killed while it writes ({after})",
            script=f"echo 'what was there before' > $PLACE; \"$@\" & sleep {after}; kill -9 $! 2> /dev/null; wait $!",
            writes=True, codes=(137,), may_be_unheard=True, kept=OLD,
        )
        for after in ("$SOON", "$LATE")
    ),
    Condition(
        name="ended while it works",
        script="echo 'what was there before' > $PLACE; \"$@\" & sleep $SOON; kill $! 2> /dev/null; wait $!",
        writes=True, codes=(143,), may_be_unheard=True, kept=OLD,
    ),
)  # fmt: skip
STOPS: Final = tuple(
    Condition(
        name=f"Ctrl-C after {after} s", script=f'(sleep {after}; kill -INT $$) & exec "$@"', codes=(130,), interrupts=True
    )
    for after in INTERRUPTS
)
CONDITIONS: Final = (*HARMLESS, *STREAMS, *OUTPUTS, *STOPS)


def can_mount() -> bool:
    """Whether this process may mount in a name space of its own."""
    return os.geteuid() == 0 and os.system("unshare -m true 2> /dev/null") == 0  # noqa: S605, S607
