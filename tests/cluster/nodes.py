"""A real Ray cluster on this machine, as a program: a head without cores, and nodes.

`python -m tests.cluster.nodes FOLDER CORES NODES` tells its address on standard output as one line of JSON, then does
what standard input says, line by line: `kill N` ends node N as SIGKILL does, `settle` waits until the head knows of it,
`add [DATA]` starts another, `behead` ends what keeps the cluster together. Each is answered by a line with the numbers
of the living nodes. It ends with its standard input. In a process of its own, since Ray keeps a cluster's address and
token for the process.
"""

import json
import sys
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

STORE_BYTES = 100 * 2**20
SEEN_SECONDS = 60.0


def main() -> None:
    folder, cores, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    cluster: Any = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES},
    )
    address = cluster.address
    nodes: dict[int, Any] = {}

    def add(data: str = "") -> None:
        number = len(nodes) + 1
        resources = {f"node-{number}": 1}
        env = {"CHARSMITH_DATA_DIR": data or str(folder / f"node-{number}")}
        nodes[number] = cluster.add_node(
            num_cpus=cores, resources=resources, object_store_memory=STORE_BYTES, env_vars=env
        )

    def tell() -> None:
        living = [number for number, node in nodes.items() if node in cluster.worker_nodes]
        print(json.dumps({"address": address, "living": living}), flush=True)

    for _ in range(count):
        add()
    tell()
    for line in sys.stdin:
        order, *words = line.split()
        if order == "kill":
            cluster.remove_node(nodes[int(words[0])], allow_graceful=False)
        elif order == "settle":
            cluster.wait_for_nodes(SEEN_SECONDS)
        elif order == "behead":
            cluster.head_node.kill_gcs_server()
        else:
            add(*words)
        tell()
    cluster.shutdown()


if __name__ == "__main__":
    main()
