"""torch.distributed over the nodes of a pool: `instance_info` has the ranks and the master's address."""

import socket

import torch
import torch.distributed as dist

import skyward_dask as sky

NODES = 2


@sky.function
def free_port() -> int:
    with socket.create_server(("", 0)) as probe:
        return probe.getsockname()[1]


@sky.function
def train(port: int, steps: int) -> list[float]:
    info = sky.instance_info()
    address = f"tcp://{info.head_host}:{port}"
    dist.init_process_group("gloo", address, rank=info.node, world_size=info.total_nodes)
    try:
        torch.manual_seed(0)
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x = sky.shard(torch.randn(64, 2))
        for _ in range(steps):
            optimizer.zero_grad()
            ((model(x) - x.sum(dim=1, keepdim=True)) ** 2).mean().backward()  # averages over the nodes
            optimizer.step()
        return [round(weight, 2) for weight in model.module.weight.flatten().tolist()]
    finally:
        dist.destroy_process_group()


def main():
    with sky.Compute(nodes=NODES, worker=sky.Worker(concurrency=1, executor="process")) as compute:
        port = free_port() >> compute.nodes[0]
        for node, weights in enumerate(train(port, steps=100) @ compute):
            print(f"node {node}: {weights}")


if __name__ == "__main__":
    main()

# Prints:
# node 0: [1.0, 1.0]
# node 1: [1.0, 1.0]
