#!/usr/bin/env python3
"""What a program with aiomqtt does, against a running broker: aiomqtt_client.py URL CA

URL is mqtt://HOST:PORT, mqtts:, ws: or wss:; CA is the file of the authority to trust, and no other.
Exit status 0 and a last line 'N passed' if all is well.
"""
import asyncio
import socket
import sys
from urllib.parse import urlsplit

from aiomqtt import Client, MqttError, ProtocolVersion, TLSParameters, Will
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

DEADLINE_S = 30
URL, CA = urlsplit(sys.argv[1]), sys.argv[2]
OPTIONS = {"hostname": URL.hostname, "port": URL.port, "timeout": DEADLINE_S}
if URL.scheme in ("ws", "wss"):
    OPTIONS |= {"transport": "websockets", "websocket_path": "/mqtt"}
if URL.scheme in ("mqtts", "wss"):
    OPTIONS |= {"tls_params": TLSParameters(ca_certs=CA)}


def client(version, name=None, clean=True, will=None):
    options = {"clean_session": clean}
    if version == ProtocolVersion.V5:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0 if clean else 600
        options = {"clean_start": clean, "properties": properties}
    return Client(**OPTIONS, identifier=name, protocol=version, will=will, **options)


async def message(of):
    return await asyncio.wait_for(anext(of.messages), DEADLINE_S)


async def every_qos(version):
    async with client(version) as subscriber, client(version) as publisher:
        await subscriber.subscribe("a/#", qos=2)
        for qos in (0, 1, 2):
            for size in (0, 1, 16_384, 300_000):
                await publisher.publish(f"a/{qos}/{size}", b"x" * size, qos)
                got = await message(subscriber)
                assert (str(got.topic), got.qos, got.payload) == (f"a/{qos}/{size}", qos, b"x" * size)


async def many_at_once(version):
    async with client(version) as subscriber, client(version) as publisher:
        await subscriber.subscribe("many", qos=1)
        await asyncio.gather(*(publisher.publish("many", str(n), 1) for n in range(200)))
        got = {int((await message(subscriber)).payload) for _ in range(200)}
        assert got == set(range(200)), got


async def retained(version):
    async with client(version) as publisher:
        await publisher.publish("r/1", b"kept", 1, True)
        async with client(version) as subscriber:
            await subscriber.subscribe("r/#", qos=1)
            got = await message(subscriber)
            assert (str(got.topic), got.payload, got.retain) == ("r/1", b"kept", True)
        await publisher.publish("r/1", b"", 1, True)
        async with client(version) as subscriber:
            await subscriber.subscribe("r/#", qos=1)
            await publisher.publish("r/2", b"live", 1)
            assert str((await message(subscriber)).topic) == "r/2", "nothing is retained"


async def sessions(version):
    name = f"session-{version}"
    async with client(version, name, clean=False) as first:
        await first.subscribe("s", qos=2)
    async with client(version) as publisher:
        for n in range(20):
            await publisher.publish("s", str(n), 2)
    # Messages that wait are taken in the order in which they came.
    async with client(version, name, clean=False) as second:
        got = [int((await message(second)).payload) for _ in range(20)]
        assert got == list(range(20)), got
    async with client(version, name, clean=True):
        pass


async def wills(version):
    async with client(version) as watcher:
        await watcher.subscribe("w/#", qos=1)
        async with client(version, will=Will("w/polite", b"never", 1)):
            pass
        try:
            async with client(version, will=Will("w/rude", b"gone", 1)) as rude:
                # aiomqtt has no way to leave without DISCONNECT; the library below it has the socket.
                connection = rude._client.socket()
                getattr(connection, "_socket", connection).shutdown(socket.SHUT_RDWR)
                await message(rude)
                raise AssertionError("it is still connected")
        except MqttError:
            pass
        got = await message(watcher)
        assert (str(got.topic), got.payload) == ("w/rude", b"gone")


async def main():
    passed = 0
    for version in (ProtocolVersion.V311, ProtocolVersion.V5):
        for test in (every_qos, many_at_once, retained, sessions, wills):
            await test(version)
            print(f"ok {test.__name__} {version.name}", flush=True)
            passed += 1
    print(f"{passed} passed")


asyncio.run(main())
