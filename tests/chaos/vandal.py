"""Who kills and stops processes at random, and takes note of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random

import psutil
from distributed import Client

from tests.chaos.agenda import Agenda
from tests.chaos.farm import Farm, children, templates
from tests.chaos.ledger import Damage, Notes

#: Seconds from one deed to the next, on the average: arbitrary.
_PACE = 0.7
#: Seconds for which a process stays stopped.
_STOPPED = (0.1, 3.0)
#: Seconds from the first deed to a template in which its worker, on a loaded machine, has replaced it.
_MOURNING = 30.0


class Vandal:
    """Harms children, templates and, where nannies bring them back, workers."""

    def __init__(self, chance: Random, farm: Farm, client: Client, agenda: Agenda, notes: Notes) -> None:
        self._chance, self._farm, self._client = chance, farm, client
        self._agenda, self._notes = agenda, notes
        self._stopped: dict[psutil.Process, Callable[[psutil.Process], None]] = {}
        self._widowed: dict[psutil.Process, float] = {}
        self.active = False
        self.stops = 0

    def begin(self) -> None:
        self.active = True
        self._come_again()

    def relent(self) -> None:
        """Harm nobody any more, and let those go on who are stopped, but for templates."""
        self.active = False
        for process in list(self._stopped):
            self._resume(process)

    def _come_again(self) -> None:
        self._agenda.after(self._chance.expovariate(1 / _PACE), self._strike)

    def _strike(self) -> None:
        if not self.active:
            return
        with suppress(psutil.Error):  # it has ended by itself
            self._harm_somebody()
        self._come_again()

    def _harm_somebody(self) -> None:
        workers = list(self._farm.workers(self._client).values())
        # Worker and template together are the one case in which daemons of tasks may stay, as the contract
        # says: so nobody harms the template of a worker that is stopped, or a worker that has just lost its.
        awake = [worker for worker in workers if worker not in self._stopped]
        sound = [worker for worker in workers if time.monotonic() > self._widowed.get(worker, 0) + _MOURNING]
        targets = [
            (50, self.kill_child, [child for worker in workers for child in children(worker)]),
            (25, self._stop_child, [child for worker in workers for child in children(worker)]),
            (8, self.kill_template, [template for worker in awake for template in templates(worker)]),
            (7, self._stop_template, [template for worker in awake for template in templates(worker)]),
            (4 if self._farm.nannies else 0, self.kill_worker, sound),
            (6 if self._farm.nannies else 0, self._stop_worker, sound),
        ]
        ((_, harm, victims),) = self._chance.choices(targets, [weight for weight, *_ in targets])
        if victims:
            harm(self._chance.choice(victims))

    # --- killing ---------------------------------------------------------------------------------

    def kill_child(self, child: psutil.Process) -> None:
        self._notes.killed.add(child.pid)  # before: its death may be heard of at once
        self._note(children=1)
        child.kill()

    def kill_template(self, template: psutil.Process) -> None:
        # its children go with it
        self._notes.killed.update(child.pid for child in template.children())
        self._note(templates=1)
        self._mourn(template)
        template.kill()

    def _mourn(self, template: psutil.Process) -> None:
        if (worker := template.parent()) is not None:
            self._widowed[worker] = time.monotonic()

    def kill_worker(self, worker: psutil.Process) -> None:
        self._note(workers=1)
        worker.kill()

    def _note(self, children: int = 0, templates: int = 0, workers: int = 0) -> None:
        so_far = self._notes.damage
        self._notes.damage = Damage(
            so_far.children + children, so_far.templates + templates, so_far.workers + workers
        )

    # --- stopping --------------------------------------------------------------------------------

    def _stop_child(self, child: psutil.Process) -> None:
        self._stop(child, self.kill_child)

    def _stop_template(self, template: psutil.Process) -> None:
        # one that doesn't answer is replaced, so a death
        self._note(templates=1)
        if self._chance.random() < 0.25:
            self._freeze(template)  # for ever
        else:
            self._mourn(template)
            self._stop(template, self.kill_template)

    def _stop_worker(self, worker: psutil.Process) -> None:
        self._stop(worker, self.kill_worker)

    def _stop(self, process: psutil.Process, kill: Callable[[psutil.Process], None]) -> None:
        self._freeze(process)
        self._stopped[process] = kill
        end = self._resume if self._chance.random() < 0.75 else self._kill_stopped
        self._agenda.after(self._chance.uniform(*_STOPPED), end, process)

    def _freeze(self, process: psutil.Process) -> None:
        self.stops += 1
        process.send_signal(signal.SIGSTOP)

    def _resume(self, process: psutil.Process) -> None:
        if self._stopped.pop(process, None) is not None:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)

    def _kill_stopped(self, process: psutil.Process) -> None:
        kill = self._stopped.pop(process, None)
        if kill is not None:
            with suppress(psutil.Error):
                kill(process)
