#!/usr/bin/env python3
"""What a program with paho-mqtt does, against a running broker: paho_client.py URL CA

URL is mqtt://HOST:PORT, mqtts:, ws: or wss:; CA is the file of the authority to trust, and no other.
Exit status 0 and a last line 'N passed' if all is well.
"""
import queue
import socket
import sys
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

DEADLINE_S = 30
URL, CA = urlsplit(sys.argv[1]), sys.argv[2]
TRANSPORT = "websockets" if URL.scheme in ("ws", "wss") else "tcp"
V5 = mqtt.MQTTv5


class Client:
    """A connected client whose messages and acknowledgements wait in queues."""

    def __init__(self, name, version, clean=True, will=None, expiry=0):
        options = {} if version == V5 else {"clean_session": clean}
        self.messages, self.acks, self.left = queue.Queue(), queue.Queue(), queue.Queue()
        self.version = version
        self.paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=version, transport=TRANSPORT, **options)
        if URL.scheme in ("mqtts", "wss"):
            self.paho.tls_set(CA)
        self.paho.on_message = lambda _c, _u, message: self.messages.put(message)
        self.paho.on_connect = lambda _c, _u, flags, code, _p: self.acks.put((flags, code))
        self.paho.on_subscribe = lambda _c, _u, _m, codes, _p: self.acks.put(codes)
        self.paho.on_unsubscribe = lambda _c, _u, _m, codes, _p: self.acks.put(codes)
        self.paho.on_disconnect = lambda _c, _u, _f, code, _p: self.left.put(code)
        if will:
            self.paho.will_set(*will)
        start = {}
        if version == V5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = expiry
            start = {"clean_start": clean, "properties": properties}
        self.paho.connect(URL.hostname, URL.port, keepalive=60, **start)
        self.paho.loop_start()
        self.flags, code = self.ack()
        assert code == 0, code

    def ack(self):
        return self.acks.get(timeout=DEADLINE_S)

    def message(self):
        return self.messages.get(timeout=DEADLINE_S)

    def subscribe(self, *arguments, **options):
        self.paho.subscribe(*arguments, **options)
        codes = self.ack()
        assert not any(code.is_failure for code in codes), codes

    def publish(self, topic, payload, qos=1, retain=False, properties=None):
        sent = self.paho.publish(topic, payload, qos, retain, properties)
        sent.wait_for_publish(DEADLINE_S)
        assert sent.is_published(), topic

    def leave(self):
        self.paho.disconnect()
        self.left.get(timeout=DEADLINE_S)
        self.paho.loop_stop()

    def vanish(self):
        """The connection ends without DISCONNECT, and the client does not come back."""
        self.paho.loop_stop()
        connection = self.paho.socket()
        # A WebSocket has no shutdown of its own.
        getattr(connection, "_socket", connection).shutdown(socket.SHUT_RDWR)


def every_qos(version):
    subscriber, publisher = Client("", version), Client("", version)
    subscriber.subscribe([("p/#", 2)] if version != V5 else "p/#", **({"qos": 2} if version == V5 else {}))
    for qos in (0, 1, 2):
        for size in (0, 1, 127, 128, 16_384, 300_000):
            publisher.publish(f"p/{qos}/{size}", b"x" * size, qos)
            got = subscriber.message()
            assert (got.topic, got.qos, got.retain, len(got.payload)) == (f"p/{qos}/{size}", qos, False, size)
    subscriber.paho.unsubscribe("p/#")
    subscriber.ack()
    publisher.publish("p/after", b"")
    subscriber.subscribe("q", qos=1)
    publisher.publish("q", b"end")
    assert subscriber.message().topic == "q", "unsubscribed"
    subscriber.leave()
    publisher.leave()


def retained(version):
    publisher = Client("", version)
    publisher.publish("r/1", b"kept", 1, True)
    subscriber = Client("", version)
    subscriber.subscribe("r/#", qos=1)
    got = subscriber.message()
    assert (got.topic, got.payload, got.retain) == ("r/1", b"kept", True)
    publisher.publish("r/1", b"", 1, True)
    assert subscriber.message().payload == b""
    late = Client("", version)
    late.subscribe("r/#", qos=1)
    publisher.publish("r/2", b"live")
    assert late.message().topic == "r/2", "nothing is retained"
    for client in (publisher, subscriber, late):
        client.leave()


def sessions(version):
    name = f"session-{version}"
    first = Client(name, version, clean=False, expiry=600)
    assert not first.flags.session_present
    first.subscribe("s", qos=2)
    first.leave()
    publisher = Client("", version)
    for n in range(50):
        publisher.publish("s", str(n), 1 + n % 2)
    second = Client(name, version, clean=False, expiry=600)
    # MQTT 3.1 cannot say so.
    assert second.flags.session_present == (version != mqtt.MQTTv31)
    got = [int(second.message().payload) for _ in range(50)]
    # paho-mqtt gives a QoS 2 message to the program at its PUBREL, so each QoS has an order of its own.
    assert [n for n in got if n % 2 == 0] == list(range(0, 50, 2)), got
    assert [n for n in got if n % 2 == 1] == list(range(1, 50, 2)), got
    taken_over = Client(name, version, clean=True)
    assert not taken_over.flags.session_present
    code = second.left.get(timeout=DEADLINE_S)
    assert version != V5 or code.value == 0x8E, code
    second.paho.loop_stop()
    taken_over.leave()
    publisher.leave()


def wills(version):
    watcher = Client("", version)
    watcher.subscribe("w/#", qos=1)
    Client("", version, will=("w/polite", b"never", 1)).leave()
    Client("", version, will=("w/rude", b"gone", 1)).vanish()
    got = watcher.message()
    assert (got.topic, got.payload) == ("w/rude", b"gone")
    watcher.leave()


def version_5(version):
    asker, server = Client("", version), Client("", version)
    server.subscribe("$share/group/ask", options=SubscribeOptions(qos=1))
    asker.subscribe("answer", qos=1)
    question = Properties(PacketTypes.PUBLISH)
    question.ResponseTopic, question.CorrelationData = "answer", b"42"
    question.UserProperty = [("a", "1"), ("a", "2")]
    question.ContentType, question.PayloadFormatIndicator = "text/plain", 1
    asker.publish("ask", "?", 1, False, question)
    got = server.message().properties
    assert (got.ResponseTopic, got.CorrelationData, got.ContentType) == ("answer", b"42", "text/plain")
    assert got.UserProperty == [("a", "1"), ("a", "2")]
    answer = Properties(PacketTypes.PUBLISH)
    answer.CorrelationData, answer.MessageExpiryInterval = got.CorrelationData, 60
    server.publish(got.ResponseTopic, "!", 2, False, answer)
    got = asker.message()
    assert got.payload == b"!" and got.properties.CorrelationData == b"42"
    assert 0 < got.properties.MessageExpiryInterval <= 60
    asker.subscribe("own", options=SubscribeOptions(qos=1, noLocal=True))
    asker.publish("own", "not to me")
    server.publish("own", "to you")
    assert asker.message().payload == b"to you"
    asker.leave()
    server.leave()


def main():
    passed = 0
    for version in (mqtt.MQTTv31, mqtt.MQTTv311, V5):
        for test in (every_qos, retained, sessions, wills) + ((version_5,) if version == V5 else ()):
            test(version)
            print(f"ok {test.__name__} {version.name if hasattr(version, 'name') else version}", flush=True)
            passed += 1
    print(f"{passed} passed")


main()
