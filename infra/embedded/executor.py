"""How tasks run on one machine: each in a process of its own, whose death is noticed at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.executors.base_executor import BaseExecutor
from airflow.executors.local_executor import LocalExecutor

from infra.embedded.processes import end, orphans

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess

    from airflow.executors.workloads import ExecutorWorkload


class ProcessExecutor(LocalExecutor):
    """Airflow's local executor without its lasting workers.

    A lasting worker that is killed takes its task with it without a word. Airflow notices when the task's heartbeat
    has been silent for long, and that time must be long: an outage of the API server silences all tasks. Killed while
    it waits for work, a lasting worker keeps the lock of the queue, and no task ever runs again. Here each task gets
    a process. When that process ends, however it ends, the executor knows.
    """

    def start(self) -> None:
        """Begin with no process."""
        self._processes: dict[Any, tuple[ForkProcess, ExecutorWorkload]] = {}

    def sync(self) -> None:
        """Tell Airflow of the processes that have ended, and end what they left behind."""
        ended = [key for key, (process, _) in self._processes.items() if not process.is_alive()]
        for key in ended:
            process, workload = self._processes.pop(key)
            succeeded = process.exitcode == 0
            if not succeeded:
                self.log.error("The process of %s ended with %s.", workload.display_name, process.exitcode)
            process.close()
            self.change_state(key, workload.success_state if succeeded else workload.failure_state)
        # A killed process leaves the task that it watched; a killed task leaves the processes that it began. In a
        # session that somebody else leads, others too may have processes without parents.
        if ended and os.getsid(0) == os.getpid():
            end(orphans(os.getpid()), polite_seconds=0)

    def end(self) -> None:
        """Wait for the tasks that run."""
        for process, _ in self._processes.values():
            process.join()
        self.sync()

    def terminate(self) -> None:
        """End the tasks that run."""
        for process, _ in self._processes.values():
            process.terminate()

    def _process_workloads(self, workload_list: Sequence[ExecutorWorkload]) -> None:
        # Airflow freezes its objects before it forks. Done for each task that counts all garbage of the moment as old,
        # where it is seldom looked for: the scheduler grew by 9 MiB a run (benchmarks/soak.py).
        for workload in workload_list:
            for queue in (self.queued_tasks, self.queued_callbacks, self.queued_connection_tests):
                queue.pop(workload.key, None)
            self.running.add(workload.key)
            if workload.running_state is not None:
                self.change_state(workload.key, workload.running_state, remove_running=False)
            process = multiprocessing.get_context("fork").Process(target=_run, args=(workload,))
            process.start()
            self._processes[workload.key] = (process, workload)


def _run(workload: ExecutorWorkload) -> None:
    """Run one workload in a new process. What the task itself came to, its supervisor tells Airflow."""
    # The scheduler's own ways to end are not those of this process.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    BaseExecutor.run_workload(workload, subprocess_logs_to_stdout=True)
