#!/usr/bin/env python3
"""What devices with mqtt-sn-12 and mqttsn do, against a running broker: mqtt_sn_client.py SN MQTT PHASE

SN and MQTT are HOST:PORT of its gateway and of a listener of MQTT. PHASE is 'before', or 'after' the broker was started again.
Exit status 0 and a last line 'N passed' if all is well.
"""
import queue
import subprocess
import sys
import time

import mqttsn
import paho.mqtt.client as paho
from mqttsn.client import Callback, Client as OtherClient
from mqttsn12.client.MqttSnClient import MqttSnClient, MqttSnListener

DEADLINE_S = 30
SN, MQTT = [(host, int(port)) for host, port in (place.rsplit(":", 1) for place in sys.argv[1:3])]


class Mqtt:
    """A client of MQTT whose messages wait in a queue."""

    def __init__(self, *filters):
        self.messages, acks = queue.Queue(), queue.Queue()
        self.paho = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.paho.on_message = lambda _c, _u, message: self.messages.put(message)
        self.paho.on_connect = lambda *_: acks.put(None)
        self.paho.on_subscribe = lambda *_: acks.put(None)
        self.paho.connect(*MQTT)
        self.paho.loop_start()
        acks.get(timeout=DEADLINE_S)
        for filter in filters:
            self.paho.subscribe(filter, 2)
            acks.get(timeout=DEADLINE_S)

    def message(self):
        got = self.messages.get(timeout=DEADLINE_S)
        return got.topic, got.payload, got.qos

    def publish(self, *arguments):
        self.paho.publish(*arguments).wait_for_publish(DEADLINE_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.paho.disconnect()
        self.paho.loop_stop()


class Device(MqttSnListener):
    """A device with mqtt-sn-12."""

    def __init__(self, name, clean=True, will=None, keep_alive=60):
        self.messages = []
        self.sn = MqttSnClient()
        self.sn.set_client_id(name)
        self.sn.set_clean_session(clean)
        self.sn.set_timeout(DEADLINE_S)
        self.sn.set_keep_alive(keep_alive)
        if will:
            self.sn.set_will(*will)
        self.sn.open(*SN)
        self.sn.send_connect()

    def message_arrived(self, message):
        self.messages.append((message.get_topic_name(), bytes(message.get_payload())))

    def subscribe(self, filter, qos=0):
        # With QoS 1 its polling() does not acknowledge, though it says so.
        self.sn.send_subscribe(filter, qos, self)

    def message(self):
        end = time.monotonic() + DEADLINE_S
        while not self.messages and time.monotonic() < end:
            self.sn.polling()
            time.sleep(0.01)
        return self.messages.pop(0)

    def wake(self, name):
        """PINGREQ with the ClientId; what comes until PINGRESP."""
        self.sn.send_packet(bytes([2 + len(name), 0x16]) + name.encode())
        got = []
        while True:
            datagram = self.sn.receive_packet(True)
            got.append(datagram)
            if datagram[1] == 0x17:
                return got
            if datagram[1] == 0x0C and datagram[2] & 0x60 == 0x20:
                self.sn.send_packet(bytes([7, 0x0D]) + datagram[3:7] + b"\0")
            if datagram[1] == 0x0A:
                self.sn.send_packet(bytes([7, 0x0B]) + datagram[2:6] + b"\0")

    def close(self):
        self.sn.send_disconnect()
        self.sn.close()


def payloads(datagrams):
    return [datagram[7:] for datagram in datagrams if datagram[1] == 0x0C]


def both_ways():
    with Mqtt("up/#") as mqtt:
        device = Device("both-ways")
        for qos in (0, 1, 2):
            device.sn.send_publish("up/a", f"{qos}".encode(), qos)
            assert mqtt.message() == ("up/a", f"{qos}".encode(), qos)
        for filter in ("down/a", "down/+/b", "sh"):
            device.subscribe(filter)
        for topic in ("down/a", "down/x/b", "down/y/b"):
            for qos in (0, 1, 2):
                mqtt.publish(topic, f"{qos}", qos)
                got = device.message()
                assert got == (topic, f"{qos}".encode()), (topic, qos, got)
        device.sn.send_unsubscribe("down/a")
        device.close()


def from_device_to_device():
    one, other = Device("one"), Device("other")
    one.subscribe("devices/#")
    other.sn.send_publish("devices/1", b"x", 1)
    assert one.message() == ("devices/1", b"x")
    one.close()
    other.close()


def predefined_topics_and_no_connection():
    with Mqtt("predefined/#") as mqtt:
        device = Device("predefined")
        device.sn.send_publish_predefined(7, b"1", 1)
        assert mqtt.message() == ("predefined/seven", b"1", 1)
        device.close()
        silent = MqttSnClient()
        silent.open(*SN)
        silent.send_publish_predefined(7, b"-1", -1)
        assert mqtt.message() == ("predefined/seven", b"-1", 0)
        silent.close()


def wills():
    with Mqtt("wills/#") as mqtt:
        device = Device("willing", will=("wills/a", "first", 1, False), keep_alive=1)
        device.sn.send_will_topic_update("wills/b")
        device.sn.send_will_message_update("second")
        # It is not heard any more.
        device.sn.close()
        assert mqtt.message() == ("wills/b", b"second", 1)


def sleepers():
    device = Device("sleeper")
    device.subscribe("sleep/#", 1)
    device.sn.send_disconnect(600)
    with Mqtt() as mqtt:
        for number in range(3):
            mqtt.publish("sleep/a", f"{number}", number % 2)
    got = []
    # What was published may not have come through the broker yet.
    while len(payloads(got)) < 3:
        got += device.wake("sleeper")
    # REGISTER before the messages in their order.
    assert got[0][1] == 0x0A and payloads(got) == [b"0", b"1", b"2"], got
    assert [datagram[1] for datagram in device.wake("sleeper")] == [0x17]
    device.close()


def gateway_discovery():
    searching = MqttSnClient()
    searching.set_timeout(DEADLINE_S)
    searching.open(*SN)
    searching.send_search_gateway(0)
    searching.close()


def the_programs():
    program = [sys.executable, "-m"]
    at = ["-h", SN[0], "-p", str(SN[1])]
    with Mqtt("programs/#") as mqtt:
        for qos in ("0", "1", "2"):
            subprocess.run(
                program + ["mqttsn12.mqtt_sn_pub", *at, "-t", "programs/up", "-m", qos, "-q", qos],
                check=True, timeout=DEADLINE_S)
            assert mqtt.message() == ("programs/up", qos.encode(), int(qos))
        mqtt.publish("programs/kept", "r", 1, True)
        got = subprocess.run(
            program + ["mqttsn12.mqtt_sn_sub", *at, "-t", "programs/kept", "-q", "1", "-1"],
            check=True, timeout=DEADLINE_S, capture_output=True, text=True)
        assert got.stdout.strip().endswith("r"), got
        mqtt.publish("programs/kept", "", 1, True)


def the_other_library():
    got = queue.Queue()

    class Listener(Callback):
        def message_arrived(self, topic, payload, qos, retained, message_id):
            got.put((payload, qos))
            return True

    with Mqtt("other/#") as mqtt:
        client = OtherClient(b"other-library", host=SN[0], port=SN[1])
        client.register_callback(Listener())
        client.connect()
        topic = client.register(b"other/up")
        for qos in (0, 1, 2):
            client.publish(topic, f"{qos}".encode(), qos)
            assert mqtt.message() == ("other/up", f"{qos}".encode(), qos)
        # Of QoS 0 and 1 it cannot take what has a normal topic id.
        code, _ = client.subscribe("other/down", 2)
        assert code == 0
        mqtt.publish("other/down", "2", 2)
        assert got.get(timeout=DEADLINE_S) == (b"2", 2)
        # Its disconnect() does not work; the broker will miss it in time.


def what_outlives_the_broker():
    """Topic ids, subscriptions and a sleeper, for the other phase."""
    device = Device("kept", clean=False)
    assert device.sn.send_register("kept/up") == 1
    device.subscribe("kept/down")
    sleeper = Device("kept-sleeper", clean=False)
    sleeper.subscribe("kept/sleep", 1)
    sleeper.sn.send_disconnect(600)
    sleeper.sn.close()
    device.sn.close()


def ids_are_as_they_were():
    with Mqtt("kept/up") as mqtt:
        mqtt.publish("kept/sleep", "1", 1)
        # Nothing is registered again by the device.
        device = Device("kept", clean=False)
        device.sn.send_publish_with_id(1, 0, b"x", 1)
        assert mqtt.message() == ("kept/up", b"x", 1)
        mqtt.publish("kept/down", "y", 1)
        device.sn.add_mqtt_sn_callback("kept/down", device)
        assert device.message() == ("kept/down", b"y")
        device.close()
        # It does not know that the broker was away.
        sleeper = Device("waker")
        got = sleeper.wake("kept-sleeper")
        assert payloads(got) == [b"1"], got
        sleeper.sn.close()


BEFORE = [
    both_ways, from_device_to_device, predefined_topics_and_no_connection, wills, sleepers, gateway_discovery, the_programs,
    the_other_library, what_outlives_the_broker,
]
CASES = {"before": BEFORE, "after": [ids_are_as_they_were]}[sys.argv[3]]
for case in CASES:
    print(case.__name__, flush=True)
    case()
print(f"{len(CASES)} passed", flush=True)
# Threads of the libraries need not end.
sys.stdout.flush()
import os  # noqa: E402
os._exit(0)
