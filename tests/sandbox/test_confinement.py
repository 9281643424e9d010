"""What a confined process cannot do any more, and what it still can. Each act is tried in a process of its own kind."""

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from deepjudge_core.models.isolation import Isolation
from deepjudge_core.sandbox import bpf, confine, landlock, limits, macos, seccomp, syscalls

needs_seccomp = pytest.mark.skipif(not seccomp.supported(), reason="no Linux with seccomp on a known architecture")
needs_landlock = pytest.mark.skipif(
    not landlock.version() or not seccomp.supported(), reason="no Linux with Landlock and seccomp"
)

# The core's own __init__ imports numpy, which may start threads: a worker is confined before.
PRELUDE = """
import ctypes, errno, json, os, sys, threading, types
package = types.ModuleType("deepjudge_core")
package.__path__ = [{package!r}]
sys.modules["deepjudge_core"] = package
from pathlib import Path
from deepjudge_core.sandbox import confine, kernel, landlock, limits, probe, syscalls
from deepjudge_core.sandbox.kernel import call
folder, parent = Path({folder!r}), os.getppid()
scratch, readable, secret = folder / "scratch", folder / "readable", folder / "secret"
canary = secret / "canary"
def raw(name, *arguments):
    return call("syscall", syscalls.NUMBERS[os.uname().machine][name], *arguments)
def enter(landlock=True):
    confine.enter((*confine.system_paths(), *confine.python_paths(), readable), scratch, landlock=landlock)
def outcome(code):
    try:
        exec(code, dict(globals()))
    except (OSError, ValueError, RuntimeError) as error:
        return errno.errorcode.get(getattr(error, "errno", None), str(error))
    return "done"
"""


class Ground:
    """A scratch folder, a folder that may be read and one that may not, and processes that know them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("scratch", "readable", "secret"):
            (folder / name).mkdir()
        self.canary = folder / "secret" / "canary"
        self.canary.write_text("alive")
        (folder / "readable" / "model").write_text("weights")
        (folder / "scratch" / "link").symlink_to(self.canary)
        (folder / "scratch" / "mine").write_text("mine")

    def start(self, code: str, **options: object) -> subprocess.Popen[str]:
        prelude = PRELUDE.format(package=str(Path(confine.__file__).parents[1]), folder=str(self.folder))
        environment = {"HOME": str(self.folder / "scratch"), "TMPDIR": str(self.folder / "scratch"), "USER": "worker"}
        environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        command = [sys.executable, "-I", "-c", prelude + code]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=environment, **pipes, **options)

    def run(self, code: str) -> subprocess.CompletedProcess[str]:
        with self.start(code) as process:
            try:
                output, errors = process.communicate(timeout=600)
            finally:
                process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def ask(self, code: str) -> object:
        done = self.run(code)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


# On files: Landlock's part, and of what it cannot see seccomp's.
ON_FILES = {
    "read": "canary.read_text()",
    "read through a link": "(scratch / 'link').read_text()",
    "read through the root of /proc": "Path(f'/proc/self/root{canary}').read_text()",
    "read through a folder's descriptor": """
held = os.open(secret, os.O_PATH)
os.open(f'/proc/self/fd/{held}/canary', os.O_RDONLY)""",
    "reopen a descriptor": "os.open(f'/proc/self/fd/{os.open(canary, os.O_PATH)}', os.O_RDONLY)",
    "read another's environment": "Path(f'/proc/{parent}/environ').read_bytes()",
    "read the users": "Path('/etc/passwd').read_text()",
    "list": "os.listdir(secret)",
    "list the root": "os.listdir('/')",
    "write": "canary.write_text('dead')",
    "write beside": "(secret / 'new').write_text('')",
    "write beside the scratch": "(folder / 'new').write_text('')",
    "write what may be read": "(readable / 'model').write_text('')",
    "write shared memory": "Path('/dev/shm/deepjudge-test').write_text('')",
    "empty": "os.truncate(canary, 0)",
    "empty what may be read": "os.truncate(readable / 'model', 0)",
    "empty by reading": "os.open(readable / 'model', os.O_RDONLY | os.O_TRUNC)",
    "open neither to read nor to write": "os.open(readable / 'model', 3)",
    "remove": "canary.unlink()",
    "remove what may be read": "(readable / 'model').unlink()",
    "link in": "os.link(canary, scratch / 'linked')",
    "link out": "os.link(scratch / 'mine', secret / 'linked')",
    "rename in": "os.rename(canary, scratch / 'moved')",
    "rename out": "os.rename(scratch / 'mine', secret / 'moved')",
    "make a link": "os.symlink(canary, scratch / 'symlink')",
    "make a pipe": "os.mkfifo(scratch / 'pipe')",
    "make a device": "os.mknod(scratch / 'device', 0o20600, os.makedev(1, 1))",
    "change rights": "canary.chmod(0o777)",
    "change rights of what is open": "os.fchmod(os.open(readable / 'model', os.O_RDONLY), 0o777)",
    "change the owner": "os.chown(canary, os.getuid(), os.getgid())",
    "change times": "os.utime(canary, (0, 0))",
    "set an attribute": "os.setxattr(canary, 'user.x', b'')",
    "watch": "call('inotify_init')",
    "map another root": "os.chroot(secret)",
    "find by a handle": "raw('open_by_handle_at', -100, None, 0)",
}
# On the network, on other processes and on the machine: seccomp's part, with Landlock and without.
ON_OTHERS = {
    "TCP": "call('socket', 2, 1, 0)",
    "UDP": "call('socket', 2, 2, 0)",
    "IPv6": "call('socket', 10, 1, 0)",
    "local socket": "call('socket', 1, 1, 0)",
    "netlink": "call('socket', 16, 3, 0)",
    "socketpair": "import socket; socket.socketpair()",
    "connect": "import socket; socket.create_connection(('127.0.0.1', 9), 1)",
    "fork": "os.fork() or os._exit(0)",
    "forkpty": "os.forkpty()",
    "run a program": "import subprocess; subprocess.run(['/bin/true'])",
    "run by a shell": "if os.system('true'): raise PermissionError(errno.EPERM, '')",
    "posix_spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "execve": "os.execv(sys.executable, ['python', '-c', ''])",
    "execveat": "raw('execveat', os.open(sys.executable, os.O_RDONLY), b'', None, None, 0x1000)",
    "clone a process": "raw('clone', 17, None, None, None, None) or os._exit(0)",
    "clone sharing memory": "raw('clone', 0x100 | 0x4000 | 17, None, None, None, None) or os._exit(0)",
    "clone into a namespace": "raw('clone', 0x3D0F00 | 0x10000000, None, None, None, None) or os._exit(0)",
    "clone3": "call('syscall', 435, bytes(88), 88) or os._exit(0)",
    "ptrace": "call('ptrace', 16, parent, None, None)",
    "trace me": "call('ptrace', 0, 0, None, None)",
    "read another's memory": "call('process_vm_readv', parent, None, 0, None, 0, 0)",
    "write another's memory": "call('process_vm_writev', parent, None, 0, None, 0, 0)",
    "signal the parent": "os.kill(parent, 0)",
    "signal all": "os.kill(-1, 0)",
    "signal the group": "os.kill(0, 0)",
    "signal the parent's thread": "raw('tgkill', parent, parent, 0)",
    "signal a thread": "raw('tkill', parent, 0)",
    "hold the parent": "os.pidfd_open(parent)",
    "have signals sent": "import fcntl; fcntl.fcntl(0, fcntl.F_SETOWN, parent)",
    "type into the terminal": "import fcntl; fcntl.ioctl(0, 0x5412, b'x')",
    "outlive the parent": "call('prctl', 1, 0, 0, 0, 0)",
    "be dumped": "call('prctl', 4, 1, 0, 0, 0)",
    "leave the group": "os.setsid()",
    "slow the parent down": "os.setpriority(os.PRIO_PROCESS, parent, 19)",
    "io_uring": "raw('io_uring_setup', 1, bytes(120))",
    "memory file": "os.memfd_create('x')",
    "shared memory": "raw('shmget', 0, 4096, 0o1600)",
    "message queue": "raw('mq_open', b'x', 0o102, 0o600, None)",
    "mount": "call('mount', b'none', bytes(scratch), b'tmpfs', 0, None)",
    "open_tree": "raw('open_tree', -100, b'/', 0)",
    "unshare": "call('unshare', 0x10000000)",
    "setns": "call('setns', 0, 0)",
    "bpf": "raw('bpf', 0, bytes(64), 64)",
    "perf": "raw('perf_event_open', bytes(112), 0, -1, -1, 0)",
    "userfaultfd": "raw('userfaultfd', 0)",
    "keys": "raw('keyctl', 0, -3, 0)",
    "become another": "os.setuid(65534)",
    "raise the open files": f"import resource; resource.setrlimit(7, ({limits.OPEN_FILES + 1},) * 2)",
    "raise the memory": "import resource; resource.setrlimit(9, (resource.RLIM_INFINITY,) * 2)",
    "limit the parent": "import resource; resource.prlimit(parent, 7)",
    "answer calls": "raw('seccomp', 1, 8, None)",
    "an unknown call": "call('syscall', 1000)",
}
DENIED = {"EPERM", "EACCES", "ENOSYS", "EXDEV", "not allowed to raise maximum limit"}

CONFINED = """
enter()
limits.limit_memory(1 << 30)
print(json.dumps({name: outcome(code) for name, code in ACTS.items()}))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What came of each act in the full sandbox."""
    ground = Ground(tmp_path_factory.mktemp("full"))
    answers = ground.ask(f"ACTS = {ON_FILES | ON_OTHERS!r}\n{CONFINED}")
    assert ground.canary.read_text() == "alive"
    assert (ground.folder / "readable" / "model").read_text() == "weights"
    assert sorted(path.name for path in ground.folder.rglob("*")) == sorted(
        ["scratch", "readable", "secret", "canary", "model", "link", "mine"]
    )
    return answers


@needs_landlock
@pytest.mark.parametrize("act", ON_FILES | ON_OTHERS)
def test_the_sandbox_denies(act: str, outcomes: dict[str, str]) -> None:
    assert outcomes[act] in DENIED


@needs_seccomp
def test_without_landlock_the_second_filter_denies_the_same(ground: Ground) -> None:
    # Without a way to files: those that are not denied would look at them only.
    outcomes = ground.ask(
        f"""
ACTS = {ON_FILES | ON_OTHERS!r} | {{"read what was readable": "(readable / 'model').read_text()"}}
import socket, subprocess, fcntl, resource
enter(landlock=False)
limits.limit_memory(1 << 30)
confine.close_files()
print(json.dumps({{name: outcome(code) for name, code in ACTS.items()}}))
"""
    )
    assert {act: outcome for act, outcome in outcomes.items() if outcome not in DENIED} == {}
    assert ground.canary.read_text() == "alive"


# Each asserts; on failure the outcome is not "done".
ALLOWED = {
    "read the model": "assert (readable / 'model').read_text() == 'weights'",
    "list the readable": "assert os.listdir(readable) == ['model']",
    "write scratch": "(scratch / 'a').write_text('x'); assert (scratch / 'a').read_text() == 'x'",
    "make a folder": "(scratch / 'b').mkdir(); (scratch / 'b' / 'c').write_text('x')",
    "rename and remove": "(scratch / 'd').touch(); (scratch / 'd').rename(scratch / 'e'); (scratch / 'e').unlink()",
    "temporary files": "import tempfile; tempfile.TemporaryFile().write(b'x'); tempfile.mkdtemp()",
    "throw away": "Path(os.devnull).write_text('x')",
    "random": "os.urandom(8); open('/dev/urandom', 'rb').read(8)",
    "time zone": "import time; time.localtime(); time.sleep(0)",
    "processors": "os.cpu_count(); os.sched_getaffinity(0); Path('/proc/cpuinfo').read_text()",
    "look at oneself": "Path('/proc/self/maps').read_text()",
    "shared library": "import _ctypes, zlib, hashlib, bz2, lzma, ssl; ctypes.CDLL('libm.so.6')",
    "threads": """
seen = []
threads = [threading.Thread(target=seen.append, args=[n]) for n in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert sorted(seen) == list(range(8))""",
    "signal oneself": "import signal; signal.signal(10, lambda *_: None); os.kill(os.getpid(), 10)",
    "pipes": "r, w = os.pipe(); os.write(w, b'x'); assert os.read(r, 1) == b'x'",
    "wait": "import select; select.select([], [], [], 0); select.poll().poll(0); select.epoll().close()",
}


@needs_landlock
def test_what_a_model_needs_works(ground: Ground) -> None:
    code = f"enter()\nprint(json.dumps({{name: outcome(code) for name, code in {ALLOWED!r}.items()}}))"
    assert ground.ask(code) == dict.fromkeys(ALLOWED, "done")


@needs_seccomp
def test_no_capability_of_root_is_kept_but_reading(ground: Ground) -> None:
    code = """
enter(landlock=False)
print(json.dumps(dict(line.split(":\\t") for line in Path("/proc/self/status").read_text().splitlines())))
"""
    status = ground.ask(code)
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[kind], 16) in (0, 1 << 2)
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


@needs_landlock
def test_setting_up_takes_a_call_of_the_kernel_for_each_path_and_few_more(ground: Ground) -> None:
    code = """
paths, calls = (*confine.system_paths(), *confine.python_paths(), readable), []
def count(*arguments):
    calls.append(arguments[0])
    return call(*arguments)
confine.call = landlock.call = confine.seccomp.call = count
confine.enter(paths, scratch, landlock=True)
print(json.dumps([len(calls), len(paths)]))
"""
    calls, paths = ground.ask(code)  # type: ignore[misc]
    assert paths < calls < paths + 20


@needs_landlock
def test_threads_cannot_be_bound_beyond_the_process(ground: Ground) -> None:
    before = os.sched_getaffinity(0)
    ground.ask("enter(); os.sched_setaffinity(parent, {min(os.sched_getaffinity(0))}); print(0)")
    assert os.sched_getaffinity(0) == before


@needs_landlock
def test_files_have_a_largest_size(ground: Ground) -> None:
    code = f"enter(); print(json.dumps(outcome(\"open(scratch / 'big', 'wb').truncate({limits.FILE_SIZE + 1})\")))"
    assert ground.ask(code) == "EFBIG"


@needs_seccomp
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="calls of other architectures exist on x86-64")
@pytest.mark.parametrize("code", ["call('syscall', 0x40000000 | 39)", "i386()"])
def test_calls_of_another_architecture_kill(code: str, ground: Ground) -> None:
    # mov eax, 20 (getpid); int 0x80; ret. A kernel without 32-bit calls ends the process, too, with another signal.
    i386 = r"""
import mmap
def i386():
    memory = mmap.mmap(-1, 4096, prot=7)
    memory.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
"""
    assert ground.run(f"{i386}\nenter(landlock=False)\n{code}").returncode in (-signal.SIGSYS, -signal.SIGSEGV)


@needs_landlock
def test_more_than_one_thread_is_too_late(ground: Ground) -> None:
    code = """
done = threading.Event()
threading.Thread(target=done.wait).start()
result = outcome("enter()")
done.set()
print(json.dumps(result))
"""
    assert "this process has 2" in str(ground.ask(code))


@needs_landlock
def test_what_is_readable_must_exist(ground: Ground) -> None:
    assert ground.ask("confine; print(json.dumps(outcome(\"landlock.restrict([folder / 'none'], [])\")))") == "ENOENT"


@needs_seccomp
def test_a_worker_dies_with_its_parent(ground: Ground) -> None:
    # The worker alone holds the pipe when the process between us is gone: its end is the worker's.
    code = """
if os.fork():
    os.read(0, 1)
    os._exit(0)
parent_end = os.dup(1)
enter(landlock=False)
os.write(parent_end, b"ready\\n")
import time
time.sleep(60)
os.write(parent_end, b"alive\\n")
"""
    with ground.start(code, stdin=subprocess.PIPE) as between:
        assert between.stdout is not None
        assert between.stdin is not None
        assert between.stdout.readline() == "ready\n"
        between.kill()
        assert between.stdout.read() == ""  # it did not live to say the rest


PROBE = "seen = probe.probe(canary)\nprint(json.dumps([seen.level, seen.leaks]))"


@needs_landlock
def test_the_probe_sees_the_full_sandbox(ground: Ground) -> None:
    assert ground.ask(f"enter()\n{PROBE}") == [Isolation.FULL, []]


@needs_seccomp
def test_the_probe_sees_closed_files(ground: Ground) -> None:
    assert ground.ask(f"enter(landlock=False)\nconfine.close_files()\n{PROBE}") == [Isolation.NO_OPEN, []]


@needs_seccomp
def test_the_probe_sees_open_files(ground: Ground) -> None:
    leaks = ["read a file", "write a file", "list a folder", "make a file", "rename a file"]
    assert ground.ask(f"enter(landlock=False)\n{PROBE}") == [Isolation.PROCESS, leaks]


@needs_landlock
def test_the_probe_sees_landlock_alone(ground: Ground) -> None:
    level, leaks = ground.ask(f"landlock.restrict([Path('/usr'), readable], [scratch])\n{PROBE}")
    assert level == Isolation.PROCESS
    assert "fork" in leaks
    assert "read a file" not in leaks


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is tried")
def test_the_probe_sees_an_unconfined_process(ground: Ground) -> None:
    level, leaks = ground.ask(PROBE)
    assert level == Isolation.PROCESS
    assert {"read a file", "make a file", "make a local socket", "fork", "run a program"} <= set(leaks)
    assert ground.canary.read_text() == "alive"
    assert [path.name for path in (ground.folder / "secret").iterdir()] == ["canary"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not hold a process to it")
def test_memory_has_an_end(ground: Ground) -> None:
    code = """
import numpy as np
limits.limit_memory(1 << 28)
np.ones(1 << 20)
terabyte = np.broadcast_to(np.float64(0), 1 << 37)
def fails(act):
    try:
        act()
    except MemoryError:
        return True
    return False
print(json.dumps([fails(terabyte.copy), fails(lambda: bytearray(1 << 30)), fails(lambda: bytearray(1 << 20))]))
"""
    assert ground.ask(code) == [True, True, False]


FRAMEWORKS = {
    "onnxruntime": """
import numpy as np, onnxruntime
from onnx import TensorProto, helper, numpy_helper
def run(seed):
    weights = numpy_helper.from_array(np.full((64, 10), seed, np.float32), "w")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in (("x", 64), ("y", 10))]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.ones((256, 64), np.float32)})[0].shape
""",
    "torch": """
import torch
torch.set_num_threads(2)
def run(seed):
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    x = torch.ones(256, 64, requires_grad=True)
    y = model(x)
    y.sum().backward()
    assert x.grad.shape == x.shape
    torch.nn.Conv2d(3, 8, 3)(torch.ones(8, 3, 32, 32))
    return tuple(y.shape)
""",
    "tensorflow": """
import keras, numpy as np, tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(2)
def run(seed):
    layers = [keras.layers.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)]
    function = tf.function(keras.Sequential(layers), autograph=False)
    return tuple(function(np.ones((256, 64), np.float32)).shape)
""",
}


@needs_landlock
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_frameworks_run_in_the_sandbox(framework: str, ground: Ground) -> None:
    pytest.importorskip(framework)
    code = f"enter()\n{FRAMEWORKS[framework]}\nlimits.limit_memory(4 << 30)\nshape = run(0), run(1)\n{PROBE}"
    assert ground.ask(f"{code}\nassert shape == ((256, 10),) * 2") == [Isolation.FULL, []]


@needs_seccomp
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_frameworks_run_with_closed_files(framework: str, ground: Ground) -> None:
    pytest.importorskip(framework)
    code = f"enter(landlock=False)\n{FRAMEWORKS[framework]}\nrun(0)\nlimits.limit_memory(4 << 30)"
    code += f"\nconfine.close_files()\nshape = run(1)\n{PROBE}\nassert shape == (256, 10)"
    assert ground.ask(code) == [Isolation.NO_OPEN, []]


def verdict(machine: str, architecture: int, number: int, *arguments: int) -> int:
    """What the filter says of a call, by an interpreter of its few instructions."""
    rules = [*seccomp._guards(), *seccomp._all(seccomp._COMPUTE, bpf.Verdict.ALLOW)]
    rules += seccomp._all(seccomp._FORBIDDEN, bpf.Verdict.DENY)
    program = list(struct.iter_unpack("<HBBI", bpf.assemble(architecture, syscalls.NUMBERS[machine], rules)))
    data = struct.pack("<IIQ6Q", number, syscalls.ARCHITECTURES[machine], 0, *arguments, *[0] * (6 - len(arguments)))
    word = at = 0
    while True:
        code, if_so, if_not, constant = program[at]
        at += 1
        match code:
            case 0x20:
                word = struct.unpack_from("<I", data, constant)[0]
            case 0x54:
                word &= constant
            case 0x15:
                at += if_so if word == constant else if_not
            case 0x35:
                at += if_so if word >= constant else if_not
            case 0x06:
                return constant
            case _:
                raise AssertionError(code)


@pytest.mark.parametrize("machine", syscalls.ARCHITECTURES)
def test_the_filter_of_each_architecture(machine: str) -> None:
    numbers, architecture = syscalls.NUMBERS[machine], syscalls.ARCHITECTURES[machine]

    def of(name: str, *arguments: int) -> int:
        return verdict(machine, architecture, numbers[name], *arguments)

    assert len(set(numbers.values())) == len(numbers)
    assert of("read") == of("futex") == of("exit_group") == bpf.Verdict.ALLOW
    assert of("clone", 0x3D0F00) == of("clone", 0x7D0F00) == bpf.Verdict.ALLOW
    assert of("clone", 17) == of("clone", 0x3D0F00 | 0x20000) == bpf.Verdict.DENY
    assert of("kill", os.getpid(), 15) == of("kill", os.getpid() | 1 << 32, 15) == bpf.Verdict.ALLOW
    assert of("kill", 0, 15) == of("kill", 2**64 - 1, 15) == bpf.Verdict.DENY
    assert of("ioctl", 0, 0x5401) == bpf.Verdict.ALLOW
    assert of("ioctl", 0, 0x5412) == bpf.Verdict.DENY
    assert of("seccomp", 1, 1) == bpf.Verdict.ALLOW
    assert of("seccomp", 1, 8) == of("seccomp", 0, 0) == bpf.Verdict.DENY
    assert of("sched_setaffinity", 0) == bpf.Verdict.ALLOW
    assert of("sched_setaffinity", 7) == bpf.Verdict.PRETEND
    assert of("execve") == of("socket") == of("ptrace") == bpf.Verdict.DENY
    assert verdict(machine, architecture, 1000) == bpf.Verdict.UNKNOWN
    assert verdict(machine, architecture, 0x40000000) == bpf.Verdict.KILL
    assert verdict(machine, architecture ^ 1, numbers["read"]) == bpf.Verdict.KILL


def test_every_call_that_is_named_has_a_number() -> None:
    named = f"{seccomp._COMPUTE} {seccomp._LOOK} {seccomp._CHANGE} {seccomp._OPEN} {seccomp._FORBIDDEN}".split()
    assert set(named) <= set(syscalls.NUMBERS["x86_64"])
    assert set(syscalls.NUMBERS["aarch64"]) <= set(syscalls.NUMBERS["x86_64"])


@needs_landlock
@pytest.mark.parametrize("version", [1, 99])
def test_other_versions_of_landlock_deny_the_same(version: int, ground: Ground) -> None:
    # What the first version does not see, seccomp forbids; what later ones will see is not known here.
    assert landlock.version() < version or version == 1
    acts = ON_FILES | ON_OTHERS
    outcomes = ground.ask(f"ACTS = {acts!r}\nlandlock.version = lambda: {version}\n{CONFINED}")
    assert {act: outcome for act, outcome in outcomes.items() if outcome not in DENIED} == {}


def test_no_folder_of_users_is_a_system_path() -> None:
    for path in confine.system_paths():
        assert path.exists()
        assert path.parts[1] in ("lib", "lib32", "lib64", "usr", "etc", "dev", "proc", "sys")
        assert path not in map(Path, ("/proc", "/etc", "/dev", "/sys", "/usr"))


def test_the_profile_of_macos_quotes_its_paths(tmp_path: Path) -> None:
    odd = tmp_path / 'a"b'
    text = macos.profile([Path("/opt/python")], odd)
    assert "(deny default)" in text
    assert f'{tmp_path.resolve()}/a\\"b' in text
    assert text.count("(") == text.count(")")
