"""A machine is lost for good and another one takes its place, by the command line."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

from support.processes import CUTE, ProcessCluster, http


async def cute(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *CUTE, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_a_lost_machine_is_replaced_and_an_empty_one_comes_back(tmp_path: Path) -> None:
    cluster = ProcessCluster(tmp_path, 4)
    cluster.founders = ["n1", "n2", "n3"]
    try:
        cluster.start(*cluster.founders)
        leader = await cluster.leader()
        lost, other = (name for name in cluster.founders if name != leader)
        await http("PUT", f"{cluster.url(leader)}/v1/streams/s", json={})
        records = f"{cluster.url(leader)}/v1/streams/s/records"
        assert (await http("POST", records, json={"records": [{"value": "a"}]}))[0] == 200

        cluster.kill(lost)
        cluster.start("n4")
        server = ("--server", cluster.url(other))
        added = await cute("cluster", "add", "n4", f"127.0.0.1:{cluster.raft['n4']}", *server)
        assert added == "n4 is a voter\n"
        assert await cute("cluster", "remove", lost, *server) == f"{lost} is removed\n"
        status = json.loads(await cute("cluster", "status", "--json", *server))
        roles = {node["id"]: node["role"] for node in status["nodes"]}
        assert roles == dict.fromkeys((leader, other, "n4"), "voter")

        cluster.kill("n4")
        shutil.rmtree(cluster.data_of("n4"))
        cluster.start("n4")
        await cluster.leader()
        cluster.kill(other)
        assert (await http("POST", records, json={"records": [{"value": "b"}]}))[0] == 200
        read = f"{cluster.url('n4')}/v1/streams/s/records?consistency=linearizable"
        _, page, _ = await http("GET", read)
        assert [record["value"] for record in page["records"]] == ["a", "b"]
    finally:
        cluster.stop()
