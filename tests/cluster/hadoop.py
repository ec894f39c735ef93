"""A NameNode, a DataNode, a ResourceManager and a NodeManager as processes of their own on this machine."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pyspark

from tests.cluster.jars import find_jars
from tests.cluster.processes import (
    LOOPBACK,
    Daemon,
    Environment,
    daemon,
    free_ports,
    python_environment,
    run,
    wait_until,
)

SPARK_JARS = Path(pyspark.__file__).parent / "jars"
# What the daemons take of Spark's jars: not all, whose Jersey and Guava are others.
CLIENT_JARS = (
    "hadoop-client-api-*",
    "hadoop-client-runtime-*",
    "slf4j-api-*",
    "log4j-*",
    "jcl-over-slf4j-*",
    "javax.servlet-api-*",
)
HDFS = "org.apache.hadoop.hdfs.server"
YARN = "org.apache.hadoop.yarn.server"


@dataclass(frozen=True)
class Hadoop:
    """The running daemons. url, rpc_url: of the file system, for the project and for YARN itself;
    conf: the HADOOP_CONF_DIR."""

    url: str
    rpc_url: str
    conf: Path
    logs: Path
    daemons: list[Daemon]

    def environment(self) -> Environment:
        """For spark-submit and the project's commands."""
        return python_environment(HADOOP_CONF_DIR=str(self.conf))

    def container_logs(self) -> str:
        """What the containers of all applications have written."""
        paths = sorted(self.logs.glob("userlogs/*/*/std*"))
        return "\n".join(f"==> {path}\n{path.read_text(errors='replace')}" for path in paths)


@contextmanager
def hadoop(folder: Path) -> Iterator[Hadoop]:
    """HDFS and YARN with all of their files in a folder, ready for work."""
    rpc, http, *yarn = free_ports(7)
    conf, logs = folder / "conf", folder / "logs"
    for path in (conf, logs):
        path.mkdir(parents=True)
    write_conf(folder, rpc, http, yarn)
    java, environment = java_command(conf, logs), python_environment(HADOOP_CONF_DIR=str(conf))
    run(
        [*java, f"{HDFS}.namenode.NameNode", "-format", "-nonInteractive"],
        logs / "format.log",
        environment,
        60,
    )
    classes = (
        f"{HDFS}.namenode.NameNode",
        f"{HDFS}.datanode.DataNode",
        f"{YARN}.resourcemanager.ResourceManager",
        f"{YARN}.nodemanager.NodeManager",
    )
    manager = f"http://{LOOPBACK}:{yarn[0]}"
    with ExitStack() as stack:
        daemons = [
            stack.enter_context(daemon([*java, name], logs / f"{name.rpartition('.')[2]}.log", environment))
            for name in classes
        ]
        wait_until(lambda: is_ready(f"http://{LOOPBACK}:{http}", manager), 90, daemons)
        yield Hadoop(f"webhdfs://{LOOPBACK}:{http}", f"hdfs://{LOOPBACK}:{rpc}", conf, logs, daemons)


def java_command(conf: Path, logs: Path) -> list[str]:
    """Java with the daemons' class path."""
    jars = [path for pattern in CLIENT_JARS for path in sorted(SPARK_JARS.glob(pattern))] + find_jars()
    home = os.environ.get("JAVA_HOME")
    return [
        f"{home}/bin/java" if home else "java",
        "--add-opens=java.base/java.lang=ALL-UNNAMED",  # YARN's Guice
        "-Xmx512m",
        f"-Dhadoop.log.dir={logs}",
        f"-Dyarn.log.dir={logs}",
        "-Djava.net.preferIPv4Stack=true",
        "-Dlog4j2.level=INFO",
        "-cp",
        ":".join([str(conf), *map(str, jars)]),
    ]


def is_ready(namenode: str, resource_manager: str) -> bool:
    """HDFS takes files (a DataNode is there, safe mode is over) and YARN has its node."""
    try:
        bean = "Hadoop:service=NameNode,name=NameNodeInfo"
        with urlopen(f"{namenode}/jmx?qry={bean}", timeout=5) as answer:
            state = json.load(answer)["beans"][0]
        with urlopen(f"{resource_manager}/ws/v1/cluster/metrics", timeout=5) as answer:
            has_node = b'"activeNodes":1' in answer.read()
    except (URLError, OSError, KeyError, IndexError):
        return False
    return has_node and not state["Safemode"] and len(json.loads(state["LiveNodes"])) == 1


def write_conf(folder: Path, rpc: int, http: int, yarn: list[int]) -> None:
    """The four files of HADOOP_CONF_DIR."""
    files = {
        "core-site": {"fs.defaultFS": f"hdfs://{LOOPBACK}:{rpc}", "hadoop.tmp.dir": f"{folder}/data"},
        "hdfs-site": hdfs_settings(http),
        "yarn-site": yarn_settings(folder, yarn),
        "capacity-scheduler": {
            "yarn.scheduler.capacity.root.queues": "default",
            "yarn.scheduler.capacity.root.default.capacity": "100",
            # At the default of 0.1 the application master of a small cluster waits for ever.
            "yarn.scheduler.capacity.maximum-am-resource-percent": "0.6",
        },
    }
    for name, settings in files.items():
        properties = "".join(
            f"<property><name>{key}</name><value>{value}</value></property>\n"
            for key, value in settings.items()
        )
        (folder / f"conf/{name}.xml").write_text(f"<configuration>\n{properties}</configuration>\n")


def hdfs_settings(http: int) -> dict[str, str]:
    return {
        "dfs.replication": "1",
        "dfs.permissions.enabled": "false",
        "dfs.namenode.http-address": f"{LOOPBACK}:{http}",
        "dfs.datanode.address": f"{LOOPBACK}:0",
        "dfs.datanode.http.address": f"{LOOPBACK}:0",
        "dfs.datanode.ipc.address": f"{LOOPBACK}:0",
        "dfs.datanode.hostname": LOOPBACK,
        "dfs.namenode.fs-limits.min-block-size": "1024",
    }


def yarn_settings(folder: Path, ports: list[int]) -> dict[str, str]:
    resource_manager = "yarn.resourcemanager"
    names = ("webapp.address", "address", "scheduler.address", "resource-tracker.address", "admin.address")
    addresses = {
        f"{resource_manager}.{name}": f"{LOOPBACK}:{port}" for name, port in zip(names, ports, strict=True)
    }
    return addresses | {
        f"{resource_manager}.hostname": LOOPBACK,
        # An application master whose cluster is gone gives up at once.
        f"{resource_manager}.connect.max-wait.ms": "5000",
        f"{resource_manager}.connect.retry-interval.ms": "500",
        "yarn.nodemanager.hostname": LOOPBACK,
        "yarn.nodemanager.address": f"{LOOPBACK}:0",
        "yarn.nodemanager.localizer.address": f"{LOOPBACK}:0",
        "yarn.nodemanager.webapp.address": f"{LOOPBACK}:0",
        "yarn.nodemanager.collector-service.address": f"{LOOPBACK}:0",
        "yarn.nodemanager.local-dirs": f"{folder}/local",
        "yarn.nodemanager.log-dirs": f"{folder}/logs/userlogs",
        "yarn.nodemanager.resource.memory-mb": "10240",
        "yarn.nodemanager.resource.cpu-vcores": "4",
        "yarn.nodemanager.vmem-check-enabled": "false",
        "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": "99",
        "yarn.nodemanager.env-whitelist": "JAVA_HOME,HADOOP_CONF_DIR",
        "yarn.nodemanager.delete.debug-delay-sec": "0",
        "yarn.scheduler.minimum-allocation-mb": "256",
        "yarn.application.classpath": "",
    }
