"""What every bench prints with, and what it reads of a process."""
import os
import pathlib
import time


def say(text):
    print(text, flush=True)


def figure(name, value, unit, goal="", note=""):
    say(f"  {name:<58} {value:>9} {unit:<4} {('goal ' + goal) if goal else '':<16} {note}".rstrip())


def machine(engine=None):
    """The line without which a figure says nothing."""
    cpu = next((line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "?")
    say(f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}: {os.cpu_count()} cores, {cpu}, Linux {os.uname().release}, "
        f"{f'Engine {engine}, ' if engine else ''}load {os.getloadavg()[0]:.1f}")


def ms(seconds):
    return f"{seconds * 1000:.0f}"


def cpu_seconds(pid):
    """Of user and kernel. By the scheduler's clock where there is one: the other counts hundredths."""
    try:
        return sum(int((task / "schedstat").read_text().split()[0]) for task in pathlib.Path(f"/proc/{pid}/task").iterdir()) / 1e9
    except OSError:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def private_dirty(pid):
    """Kilobytes."""
    return sum(int(line.split()[1]) for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Private_Dirty"))
