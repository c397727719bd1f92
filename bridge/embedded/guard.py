"""Run a program so that it dies with the process that started it, `kill -9` included.

Linux can send a process a signal when its parent ends (PR_SET_PDEATHSIG), but only the process
itself can ask for it. So this file is also a program: started in the child's place, it asks, makes
sure that its parent is still there, and becomes the real command (same pid, no process left
between). A `preexec_fn` would do the same between fork and exec, where Python is not safe with
threads. On other systems the command simply runs: only a clean stop ends it there.

The signal is sent when the starting *thread* ends, not the process: start guarded children from
the main thread, or from one that lives as long as they should.
"""

import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_EXIT_NOT_RUN = 127  # what a shell answers when it cannot run a command


def guarded(command: Sequence[str], *, on_parent_death: int = signal.SIGKILL) -> list[str]:
    """Format the command line that runs `command` so that it dies with the calling process.

    Args:
        command: The program and its arguments; the program is found on PATH.
        on_parent_death: The signal that the program gets when its parent has ended: SIGKILL for a
            JVM, whose own stop takes its time; SIGTERM for a child that stops by itself.

    Returns:
        A command line to be started by this very process. It exits with 127 when the program
        cannot be run, and is killed by the signal when this process is gone before it runs.
    """
    return [
        sys.executable,
        "-I",
        "-S",
        __file__,
        str(os.getpid()),
        str(int(on_parent_death)),
        *command,
    ]


def _main(parent_pid: int, signal_number: int, command: list[str]) -> int:
    # A group of its own: Ctrl-C in a terminal reaches the owner only, which ends its children in
    # order. Kafka would else be gone before the workers could commit.
    os.setpgid(0, 0)
    # Python ignores SIGPIPE, and what is ignored stays so in the command: `yes | head` would complain.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - not there on every system, and only this one needs it

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
        if os.getppid() != parent_pid:  # it ended before we asked: nobody will tell us any more
            os.kill(os.getpid(), signal_number)
    try:
        os.execvp(command[0], command)  # noqa: S606 - to become the command is the purpose
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]}: {error.strerror}\n")
    return _EXIT_NOT_RUN


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
