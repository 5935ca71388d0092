"""An embedded store that goes away and comes back, on the same port and data."""

from signal import SIGCONT, SIGKILL, SIGSTOP

from infra.local.part import Part, spawn, stop, wait_ready


class Store:
    """A context in which the store runs, unless it is told not to."""

    def __init__(self, part: Part, log):
        self.part, self.log, self.address = part, log, part.address
        self._process = None
        self._frozen = False

    def up(self):
        """Start it or wake it; returns when it answers."""
        if self._frozen:
            self._process.send_signal(SIGCONT)
            self._frozen = False
        if self._process is None:
            self.part.prepare()
            self._process = spawn(self.part, self.log)
        wait_ready(self.part, self._process)

    def down(self, how="stop"):
        """Stop it cleanly, `kill` it, or `freeze` it: then it takes connections, and never answers."""
        if how == "freeze":
            self._process.send_signal(SIGSTOP)
            self._frozen = True
            return
        if how == "kill":
            self._process.send_signal(SIGKILL)
            self._process.wait()
        stop(self.part, self._process)
        self._process = None

    def __enter__(self):
        self.up()
        return self

    def __exit__(self, *_):
        if self._process is not None:
            self.down("kill")
