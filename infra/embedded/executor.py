"""How tasks run on one machine: each in a process of its own, whose death is noticed at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing import connection, forkserver
from typing import TYPE_CHECKING, Any

from airflow.executors.base_executor import BaseExecutor
from airflow.executors.local_executor import LocalExecutor

from infra.embedded.processes import end, orphans

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

    from airflow.executors.workloads import ExecutorWorkload


# What the process imports that the others are forked from.
PRELOADED = ["infra.preloaded", __name__]
# A scheduler with nothing to do looks for news so often: what people triggered waits no longer.
IDLE_SECONDS = 1.0
# While tasks run, their ends are the news, and these are noticed at once.
BESIDE_TASKS_SECONDS = 3.0
# What the end of a task makes possible takes the scheduler some rounds: to expand a mapped task, to skip others.
ROUNDS_AFTER_NEWS = 6
# Between two looks whether a process is gone that has closed all it had open.
ENDING_SECONDS = 0.02


class ProcessExecutor(LocalExecutor):
    """Airflow's local executor without its lasting workers.

    A lasting worker that is killed takes its task with it without a word. Airflow notices when the task's heartbeat
    has been silent for long, and that time must be long: an outage of the API server silences all tasks. Killed while
    it waits for work, a lasting worker keeps the lock of the queue, and no task ever runs again. Here each task gets
    a process. When that process ends, however it ends, the executor knows.

    The processes are forked from one that has imported what tasks use, and has done nothing else.

    The scheduler waits here, and not in a sleep of fixed length: the end of a process wakes it at once, and beside long
    tasks it looks for other news less often.
    """

    def start(self) -> None:
        """Begin with no process but the one that the others are forked from."""
        self._processes: dict[Any, tuple[ForkServerProcess, ExecutorWorkload]] = {}
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        # At once, so that it imports while the other servers start.
        forkserver.ensure_running()
        self._rounds = 0

    def heartbeat(self) -> None:
        """One round of the scheduler: begin what is queued, and tell what has ended or wait for something to end."""
        super().heartbeat()
        if not self.event_buffer and not self._rounds:
            ends = [process.sentinel for process, _ in self._processes.values()]
            if connection.wait(ends, BESIDE_TASKS_SECONDS if ends else IDLE_SECONDS):
                self.sync()
        self._rounds = ROUNDS_AFTER_NEWS if self.event_buffer else max(0, self._rounds - 1)

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
        for workload in workload_list:
            for queue in (self.queued_tasks, self.queued_callbacks, self.queued_connection_tests):
                queue.pop(workload.key, None)
            self.running.add(workload.key)
            if workload.running_state is not None:
                self.change_state(workload.key, workload.running_state, remove_running=False)
            process = self._context.Process(target=_run, args=(workload,))
            process.start()
            self._processes[workload.key] = (process, workload)


def _run(workload: ExecutorWorkload) -> None:
    """Run one workload in a new process. What the task itself came to, its supervisor tells Airflow."""
    # The scheduler's own ways to end are not those of this process.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    from airflow.sdk.execution_time.supervisor import WatchedSubprocess

    WatchedSubprocess._service_subprocess = _watch(WatchedSubprocess._service_subprocess)
    BaseExecutor.run_workload(workload, subprocess_logs_to_stdout=True)


def _watch(airflows: Callable[..., Any]) -> Callable[..., Any]:
    """Airflow's look at a task, without its wait of 5 s for one that is ending.

    A process that ends closes what it has open, and is gone a moment later. In between there is nothing left to listen
    to, and Airflow would wait for as long as between two heartbeats before it looks whether the process is gone.
    """

    def look(watched: Any, max_wait_time: float, **given: Any) -> Any:
        return airflows(watched, max_wait_time if watched._open_sockets else ENDING_SECONDS, **given)

    return look
