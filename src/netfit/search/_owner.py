"""Who works on a trial or holds a lock, as one word that a store or a lock's name can hold."""

from netfit.runs import is_alive, this_process

__all__ = ["alive", "me"]


def me() -> str:
    """This process as an owner: ``host|pid|start``."""
    owner = this_process()
    return f"{owner['host']}|{owner['pid']}|{owner['started']}"


def alive(owner: str) -> bool:
    """Whether the process of an owner may still be running; text that names no owner is nobody."""
    host, _, rest = owner.partition("|")
    pid, _, started = rest.partition("|")
    return pid.isdecimal() and is_alive({"host": host, "pid": int(pid), "started": started})
