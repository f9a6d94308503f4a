"""What a balancer tells its service manager from the loop that serves."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from balancer.app import build
from balancer.config_file.configuration import Configuration
from balancer.config_file.load import Sources
from balancer.settings import Settings
from tests.support.heard_by_manager import HeardByManager
from tests.support.running_balancer import ANY_PORT, QUICK, eventually

WATCHDOG_S = 0.2


async def test_what_is_wrong_with_a_changed_file_is_told(tmp_path: Path) -> None:
    manager = HeardByManager()
    file = tmp_path / "paddler.yaml"
    file.write_text("inference: 127.0.0.1:0\nmanagement: 127.0.0.1:0\n")
    configuration = Configuration(Sources(config=file))
    app = build(configuration, manager)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(app.run())
        await eventually(lambda: bool(manager.heard), "ready")
        file.write_text(f"{file.read_text()}max_wating: 3\n")
        await configuration.reload("request")
        wrong = "agents: 0; 0 requests run, 0 wait; settings not reloaded: max_wating: "
        await eventually(
            lambda: any(said.get("status", "").startswith(wrong) for said in manager.heard),
            "what is wrong",
        )
        app.stop()


async def test_a_loop_that_is_blocked_says_nothing() -> None:
    manager = HeardByManager(watchdog_s=WATCHDOG_S)
    app = build(Settings(inference=ANY_PORT, management=ANY_PORT, **QUICK), manager)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(app.run())
        await eventually(lambda: sum("well" in said for said in manager.heard) > 2, "well")
        assert manager.heard[0] == {
            "ready": True,
            "status": "agents: 0; 0 requests run, 0 wait",
        }
        said = len(manager.heard)
        time.sleep(2 * WATCHDOG_S)  # noqa: ASYNC251 (this is what blocks a loop)
        assert len(manager.heard) == said
        await eventually(lambda: len(manager.heard) > said, "well again")
        app.stop()
    (stopping,) = [said for said in manager.heard if "stopping" in said]
    assert stopping["status"] == "draining: 0 requests run, 0 wait"
    assert stopping["extend_s"]
