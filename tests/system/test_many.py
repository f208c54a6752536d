"""Twenty instances on one machine, and the one target that holds them."""

from __future__ import annotations

from tests.lab.namespaces import eventually
from tests.lab.tools import machine as shape_of
from tests.system.pair import Pair

COUNT = 20


def test_twenty_instances_start_restart_and_stop_by_the_target(pair: Pair) -> None:
    """Nothing is left of them after the stop, or a purge in place of it: no link, route, socket, process."""
    machine = pair.b.machine
    machine.run("systemctl disable --now vpnd@site")
    eventually(lambda: "vpn-site" not in machine.output("ip -br link"), what="the first instance's end")
    before = shape_of(machine.host)
    names = [f"n{number:02}" for number in range(COUNT)]
    for number, name in enumerate(names):
        machine.run(f"vpnctl key gen /etc/vpnd/keys/{name}.key")
        machine.write(
            f"/etc/vpnd/{name}.toml",
            f'[interface]\nname = "vpn-{name}"\naddresses = ["10.77.{number}.1/24"]\n'
            f'[local]\nlisten = ["0.0.0.0:{6000 + number}"]\n[routing]\nforward = true\n',
        )
    units = [f"vpnd@{name}" for name in names]
    machine.run(f"systemctl enable {' '.join(units)}")
    machine.run("systemctl start vpnd.target")

    def all_active() -> bool:
        states = machine.output(f"systemctl is-active {' '.join(units)}; true").split()
        return states == ["active"] * COUNT

    eventually(all_active, within_s=60, what="all instances")
    daemons = {machine.pid(unit) for unit in units}
    assert len(daemons) == COUNT
    assert machine.output("ip -br link").count("vpn-n") == COUNT
    machine.run("systemctl restart vpnd.target", timeout_s=120)
    eventually(all_active, within_s=60, what="all instances again")
    assert daemons.isdisjoint({machine.pid(unit) for unit in units})

    def nothing_is_left() -> bool:
        return shape_of(machine.host) == before and not machine.output("ls /run/vpnd; pgrep -a vpnd; true")

    machine.run("systemctl stop vpnd.target", timeout_s=120)
    eventually(nothing_is_left, within_s=60, what="the machine as it was")
    assert machine.output("systemctl list-units --failed --no-legend 'vpnd*'") == ""

    machine.run("systemctl start vpnd.target")
    eventually(all_active, within_s=60, what="all instances once more")
    machine.run("apt-get purge -y vpnd", timeout_s=120)
    eventually(nothing_is_left, within_s=60, what="the machine as it was, after a purge")
    assert machine.output("systemctl list-units --state=active,failed --no-legend 'vpnd*'") == ""
