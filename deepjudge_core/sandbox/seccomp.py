"""seccomp: which calls of the kernel a process may make.

An allowlist: what computing, threads, and files within Landlock's bounds need. The kernel gets new calls with most of
its releases, and they are unknown here until somebody has looked at them.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Iterable

from deepjudge_core.sandbox.bpf import Rule, Verdict, Where, assemble
from deepjudge_core.sandbox.kernel import call
from deepjudge_core.sandbox.syscalls import ARCHITECTURES, NUMBERS

_SET_MODE_FILTER, _GET_ACTION_AVAILABLE = 1, 2
_TSYNC = 1  # for all threads of the process

# Memory, threads, time, signals to oneself, and what is done with a file that is open.
_COMPUTE = """
    brk mmap mremap munmap mprotect madvise mincore mlock mlock2 munlock msync
    mbind get_mempolicy set_mempolicy membarrier
    futex futex_waitv futex_wait futex_wake futex_requeue
    set_robust_list set_tid_address rseq arch_prctl exit exit_group restart_syscall
    sched_yield sched_getaffinity sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min
    getcpu getpriority
    getpid gettid getppid getuid geteuid getgid getegid getpgrp getpgid getsid getgroups getresuid getresgid
    uname sysinfo times getrusage getrlimit getrandom umask
    time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep
    alarm getitimer setitimer pause
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait sigaltstack
    read write pread64 pwrite64 readv writev preadv pwritev preadv2 pwritev2 lseek sendfile copy_file_range
    fstat fstatfs getdents getdents64 ftruncate fallocate fadvise64 fsync fdatasync flock
    close close_range dup dup2 dup3 pipe pipe2 eventfd eventfd2
    poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
    timerfd_create timerfd_settime timerfd_gettime
"""
# What is asked of a path without opening it. No filter can tell one path from another, nor can Landlock restrict it.
_LOOK = "stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat statfs getcwd chdir fchdir"
# What Landlock restricts. Rights, owners, times and extended attributes it does not: nobody here may change them.
_CHANGE = "mkdir mkdirat rmdir unlink unlinkat link linkat rename renameat renameat2"
_OPEN = "open openat"

# What a process needs that starts copies of itself, each of which gives up the rest; it runs no other program.
_START = """
    clone fork vfork wait4 waitid kill tgkill setpgid recvmsg sendmsg sendto
    prctl fcntl ioctl prlimit64 setrlimit sched_setaffinity capget capset
    seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
"""

# Denied like by a system that forbids it, so that a library says so or does without. `openat2`, whose flags no filter
# sees, is not among them, but unknown as on an older system: libraries then take `openat`.
_FORBIDDEN = """
    execve execveat fork vfork clone ptrace process_vm_readv process_vm_writev process_madvise kcmp
    kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_getfd pidfd_send_signal
    socket socketpair connect bind listen accept accept4 sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg
    shmget shmat shmctl msgget msgsnd msgrcv msgctl semget semop semctl mq_open memfd_create memfd_secret
    io_uring_setup io_uring_enter io_uring_register io_setup bpf perf_event_open userfaultfd
    add_key request_key keyctl
    mount umount2 move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr pivot_root chroot unshare setns
    open openat creat truncate name_to_handle_at open_by_handle_at symlink symlinkat mknod mknodat
    mkdir mkdirat rmdir unlink unlinkat link linkat rename renameat renameat2
    chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat
    setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr
    inotify_init inotify_init1 inotify_add_watch fanotify_init fanotify_mark
    setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset setsid setpgid
    prctl ioctl fcntl prlimit64 setrlimit setpriority sched_setparam sched_setscheduler sched_setattr ioprio_set
    seccomp personality init_module finit_module delete_module kexec_load reboot swapon swapoff
    settimeofday clock_settime adjtimex clock_adjtime sethostname setdomainname syslog acct quotactl
"""

# The C library starts a thread with these flags and no others; a process would come without CLONE_VM and CLONE_THREAD.
_THREAD_FLAGS = 0x3D0F00
_CLONE_DETACHED = 0x400000  # of no effect; musl sets it
_ACCESS_MODE, _O_TRUNC = 0o3, 0o1000
# F_DUPFD ... F_SETLKW, F_OFD_*LK, F_DUPFD_CLOEXEC, F_SETPIPE_SZ, F_GETPIPE_SZ. Not F_SETOWN: it sends signals.
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1031, 1032)
# TCGETS, TCGETS2 (is it a terminal?), TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX. Not TIOCSTI: it types.
_IOCTL = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
_PRCTL = (15, 16, 0x53564D41)  # PR_SET_NAME, PR_GET_NAME, PR_SET_VMA: names of threads and of memory


def supported() -> bool:
    """Whether this is a Linux whose calls are known here, with a kernel that filters them."""
    if sys.platform != "linux" or sys.maxsize < 1 << 32 or os.uname().machine not in ARCHITECTURES:
        return False
    try:
        _seccomp(_GET_ACTION_AVAILABLE, 0, struct.pack("=I", Verdict.KILL))
    except OSError:
        return False
    return True


def forbid_all_but_computing() -> None:
    """Take away every call but those for computing and for files; ``no_new_privs`` must be set."""
    _install([*_guards(), *_all(f"{_COMPUTE}{_LOOK} {_CHANGE} {_OPEN}", Verdict.ALLOW)])


def forbid_all_but_starting() -> None:
    """Take away every call but those for computing, for files and for starting copies of the process."""
    _install(list(_all(f"{_COMPUTE}{_LOOK} {_CHANGE} {_OPEN} {_START}", Verdict.ALLOW)))


def forbid_files() -> None:
    """Take away the calls that open, make, rename or remove a file, too. What is open stays open."""
    _install([*_guards(), *_all(f"{_COMPUTE}{_LOOK}", Verdict.ALLOW)])


def _guards() -> list[Rule]:
    """The calls that are allowed with some arguments only."""
    me = os.getpid()
    allowed = [
        ("clone", (Where(0, _THREAD_FLAGS, ~_CLONE_DETACHED & 0xFFFFFFFF),)),
        ("kill", (Where(0, me),)),
        ("tgkill", (Where(0, me),)),
        # A process may not raise its limits: it has no CAP_SYS_RESOURCE.
        ("prlimit64", (Where(0, 0),)),
        ("sched_setaffinity", (Where(0, 0),)),
        ("seccomp", (Where(0, _SET_MODE_FILTER), Where(1, _TSYNC))),  # a second filter can only forbid more
        ("seccomp", (Where(0, _GET_ACTION_AVAILABLE),)),
        *(("prctl", (Where(0, option),)) for option in _PRCTL),
        *(("fcntl", (Where(1, command),)) for command in _FCNTL),
        *(("ioctl", (Where(1, request),)) for request in _IOCTL),
    ]
    return [
        *(Rule(name, Verdict.ALLOW, where) for name, where in allowed),
        # Threads are bound to processors by their number, which could be another process: nobody is bound.
        Rule("sched_setaffinity", Verdict.PRETEND),
        # To open a file neither for reading nor for writing, or for reading and yet empty it: before its third version
        # Landlock saw no writing in it.
        *(
            Rule(name, Verdict.DENY, (Where(flags, value, mask),))
            for name, flags in (("open", 1), ("openat", 2))
            for value, mask in ((_ACCESS_MODE, _ACCESS_MODE), (_O_TRUNC, _ACCESS_MODE | _O_TRUNC))
        ),
    ]


def _all(names: str, verdict: Verdict) -> Iterable[Rule]:
    return (Rule(name, verdict) for name in names.split())


def _install(rules: list[Rule]) -> None:
    machine = os.uname().machine
    program = assemble(ARCHITECTURES[machine], NUMBERS[machine], [*rules, *_all(_FORBIDDEN, Verdict.DENY)])
    code = ctypes.create_string_buffer(program, len(program))
    length = len(program) // 8
    if thread := _seccomp(_SET_MODE_FILTER, _TSYNC, struct.pack("@HP", length, ctypes.addressof(code))):
        raise OSError(f"seccomp: thread {thread} cannot be confined")


def _seccomp(operation: int, flags: int, data: bytes) -> int:
    return call("syscall", NUMBERS[os.uname().machine]["seccomp"], operation, flags, data)
