"""Nova's own code, asked without an OpenStack: JSON requests on standard input, an answer in a line each.

    {"make": {"memory_mb": N, "image": {K: V}, "extra_specs": {K: V}, "libvirt": {K: V}, "pci": [ADDRESS]}}
        the domain XML of a new instance of such a flavor and image, on a compute host with these options in [libvirt]
    {"again": null}
        the XML of the same instance, as its next hard reboot writes it
    {"run": "COMMAND"}
        what nova says to an `openstack` or `nova-manage` command line about that instance; null if it takes it

All that makes XML and all that takes or refuses values is the code of an installed nova. Its test fixtures, which come
with it, play libvirtd; what is put in the place of the database is the one instance.
"""
import argparse
import contextlib
import io
import json
import logging
import shlex
import sys
import unittest
import warnings
from unittest import mock

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

from nova import objects
from nova.api.openstack.compute import flavors_extraspecs
from nova.cmd import common, manage
from nova.compute import vm_states
from nova.objects import fields
from nova.tests.unit.api.openstack import fakes
from nova.tests.unit.virt.libvirt import test_driver
from nova.virt import hardware

CONF = manage.CONF


class Refused(Exception):
    """What nova does not take, in its words."""


class World(test_driver.LibvirtConnTestCase):
    """One instance; `runTest` makes its XML inside of the fixtures."""

    asked = None
    # What nova keeps of the image with the instance, as in its database.
    properties = None
    stopped = False
    xml = None

    def runTest(self):
        for key, value in World.asked.get("libvirt", {}).items():
            self.flags(**{key: [value] if key in ("hw_machine_type", "cpu_models") else value}, group="libvirt")
        # The fixture's capabilities are those of QEMU 2.11.
        self.useFixture(test_driver.fixtures.MockPatch("nova.virt.libvirt.host.Host._check_machine_type"))
        driver = test_driver.libvirt_driver.LibvirtDriver(test_driver.fake.FakeVirtAPI(), True)
        instance = objects.Instance(**self.test_instance)
        instance.flavor.memory_mb, instance.flavor.vcpus = World.asked["memory_mb"], 16
        instance.flavor.extra_specs = World.asked.get("extra_specs", {})
        image = objects.ImageMeta.from_dict({"disk_format": "raw", "properties": World.properties})
        self.attach(instance, World.asked.get("pci", []))
        disk = test_driver.blockinfo.get_disk_info(test_driver.CONF.libvirt.virt_type, instance, image)
        network = test_driver._fake_network_info(self)
        context = test_driver.context.get_admin_context()
        World.xml = driver._get_guest_xml(context, instance, network, disk, image)

    @staticmethod
    def attach(instance, addresses):
        ids = ["00000000-0000-4000-8000-%012x" % number for number in range(len(addresses))]
        instance.pci_devices = objects.PciDeviceList(objects=[
            objects.PciDevice(
                address=address, compute_node_id=1, request_id=id, vendor_id="10de", product_id="2330", dev_id="x",
                label="x", extra_info={}, parent_addr=None, numa_node=None, instance_uuid=instance.uuid,
                dev_type=fields.PciDeviceType.STANDARD, status=fields.PciDeviceStatus.ALLOCATED)
            for address, id in zip(addresses, ids)])
        instance.pci_requests = objects.InstancePCIRequests(instance_uuid=instance.uuid, requests=[
            objects.InstancePCIRequest(count=1, request_id=id, alias_name="gpu", spec=[{"vendor_id": "10de"}])
            for id in ids])


def make(asked):
    World.asked, World.properties, World.stopped = asked, dict(asked.get("image", {})), False
    return again(None)


def again(_):
    World.xml = None
    result = unittest.TestResult()
    World().run(result)
    if World.xml is None:
        raise Refused("\n".join(traceback for _, traceback in result.errors + result.failures))
    return World.xml


def run(command):
    words = shlex.split(command)
    try:
        {"openstack": openstack, "nova-manage": nova_manage}[words[0]](words[1:])
    except Refused as refused:
        return str(refused)
    return None


def openstack(words):
    if words[:2] in (["server", "stop"], ["server", "start"]) and len(words) == 3:
        World.stopped = words[1] == "stop"
        return
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--os-compute-api-version", default="2.1")
    parser.add_argument("thing", choices=["image", "flavor"])
    parser.add_argument("verb", choices=["set"])
    parser.add_argument("--property", action="append", default=[])
    parser.add_argument("name")
    call = parser.parse_args(words)
    settings = dict(setting.split("=", 1) for setting in call.property)
    try:
        if call.thing == "image":
            manage.ImagePropertyCommands()._validate_image_properties(call.property)
        else:
            request = fakes.HTTPRequest.blank("/", version=call.os_compute_api_version)
            flavors_extraspecs.FlavorExtraSpecsController()._check_extra_specs_value(request, settings)
            # What the driver and the scheduler do with it, beside the image as it is now.
            flavor = objects.Flavor(extra_specs=settings)
            image = objects.ImageMeta.from_dict({"properties": World.properties})
            hardware.get_maxphysaddr_mode(flavor, image)
    except Exception as error:
        raise Refused(f"{type(error).__name__}: {error}") from error


def nova_manage(words):
    """The command line through nova-manage's own parser and action, on the one instance."""
    state = vm_states.STOPPED if World.stopped else vm_states.ACTIVE
    system = {f"image_{name}": value for name, value in World.properties.items()}
    uuid = "c7a5fdbd-3bf6-4f3c-9f9e-1d1a1a1a1a1a"
    instance = objects.Instance(uuid=uuid, vm_state=state, system_metadata=system, image_ref=None)
    said = io.StringIO()
    with contextlib.ExitStack() as stack:
        for target in ("nova.objects.InstanceMapping.get_by_instance_uuid", "nova.context.target_cell",
                       "nova.objects.RequestSpec.get_by_instance_uuid", "nova.objects.Instance.save"):
            stack.enter_context(mock.patch(target))
        stack.enter_context(mock.patch("nova.objects.Instance.get_by_uuid", return_value=instance))
        stack.enter_context(contextlib.redirect_stdout(said))
        stack.enter_context(contextlib.redirect_stderr(said))
        # Only for this call: the fixtures read a command line, too, an empty one.
        CONF.reset()
        CONF.register_cli_opts([manage.category_opt])
        stack.callback(CONF.unregister_opt, manage.category_opt)
        stack.callback(CONF.reset)
        try:
            CONF(words, project="nova", default_config_files=[])
            action, arguments, options = common.get_action_fn()
            status = action(*arguments, **options)
        except SystemExit as error:
            status = error.code
    if status:
        raise Refused(f"{status}: {said.getvalue().strip()}")
    World.properties = {name.removeprefix("image_"): value for name, value in instance.system_metadata.items()}


def main():
    objects.register_all()
    answers = sys.stdout
    # What nova prints is none of the answers.
    sys.stdout = sys.stderr
    for line in sys.stdin:
        ((kind, value),) = json.loads(line).items()
        try:
            answer = {"answer": {"make": make, "again": again, "run": run}[kind](value)}
        except Refused as refused:
            answer = {"error": str(refused)}
        print(json.dumps(answer), file=answers, flush=True)


main()
