// The nodes that the dashboard is tried with, and who connects to them. The program is the first argument.
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import dgram from 'node:dgram'
import fs from 'node:fs'
import { createRequire } from 'node:module'
import os from 'node:os'
import path from 'node:path'
import readline from 'node:readline'

const mqtt = createRequire(import.meta.url)('mqtt')
const newtmq = process.argv[2]
export const PATIENCE = 60_000
export const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'newtmq-dashboard-'))
// By their numbers, from 1.
export const nodes = []

export async function until(what, test) {
  const end = Date.now() + PATIENCE
  for (;;) {
    const value = await test()
    if (value) return value
    if (Date.now() > end) throw new Error(`still waiting for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

function files() {
  fs.writeFileSync(path.join(folder, 'acl.conf'), '%% Who may do what.\n{allow, {user, "dashboard"}, subscribe, ["$SYS/#"]}.\n{deny, all, subscribe, ["$SYS/#", {eq, "#"}]}.\n{allow, all}.\n')
  for (const user of ['sensor', 'meter']) spawnSync(newtmq, ['passwd', path.join(folder, 'users'), user], { input: 'a password\n' })
}

export async function start(number) {
  const sets = [
    `node.name=n${number}@plant`, 'node.cookie=s3cr3t', 'node.listen=127.0.0.1:0', 'listener.tcp.external.bind=127.0.0.1:0', 'listener.ws.external.bind=127.0.0.1:0', 'listener.sn.external.bind=127.0.0.1:0',
    'api.bind=none', 'dashboard.bind=127.0.0.1:0', `acl_file=${path.join(folder, 'acl.conf')}`, `password_file=${path.join(folder, 'users')}`, 'user_table=true', 'allow_anonymous=true', 'mqtt.max_packet_size=4MB',
  ]
  const child = spawn(newtmq, ['run', '--json', '--shards', '2', '--data', path.join(folder, String(number)), ...sets.flatMap((set) => ['--set', set])], { stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: process.env.PATH } })
  const log = []
  child.stderr.on('data', (data) => log.push(String(data)))
  const line = await new Promise((resolve, reject) => {
    readline.createInterface(child.stdout).once('line', resolve)
    child.once('exit', () => reject(new Error(`node ${number} has ended: ${log.join('')}`)))
  })
  child.removeAllListeners('exit')
  const started = JSON.parse(line)
  nodes[number] = { child, log, dashboard: started.dashboard, tcp: started.listeners.find(({ protocol }) => protocol === 'mqtt').address, sn: started.listeners.find(({ protocol }) => protocol === 'mqtt-sn').address }
}

function ctl(number, ...command) {
  return spawnSync(newtmq, ['ctl', '--data', path.join(folder, String(number)), ...command], { encoding: 'utf8', env: { PATH: process.env.PATH } }).stdout
}

const running = (number) => ctl(number, 'cluster', 'status').match(/running_nodes,\[([^\]]*)\]/)?.[1].split(',').length ?? 0

export async function form() {
  files()
  for (const number of [1, 2, 3]) await start(number)
  const address = await until('an address', () => JSON.parse(ctl(1, 'cluster', 'status', '--json') || '{}').data?.nodes?.find((node) => node.self)?.address)
  for (const number of [2, 3]) {
    const told = ctl(number, 'cluster', 'join', address)
    assert.match(told, /successfully/)
  }
  for (const number of [1, 2, 3]) await until('three nodes', () => running(number) === 3)
}

export async function client(number, clientId, options = {}) {
  const [host, port] = nodes[number].tcp.split(':')
  return mqtt.connectAsync({ host, port: Number(port), protocolVersion: 5, clientId, reconnectPeriod: 0, ...options })
}

// A device of MQTT-SN connects; if a time is said it subscribes and falls asleep.
export async function device(number, id, sleeps) {
  const [host, port] = nodes[number].sn.split(':')
  const socket = dgram.createSocket('udp4')
  await new Promise((resolve) => socket.connect(Number(port), host, resolve))
  const told = (type) => new Promise((resolve) => socket.on('message', (message) => message[1] === type && resolve()))
  const number16 = (n) => [n >> 8, n & 255]
  const send = (...bytes) => socket.send(Buffer.from([bytes.length + 1, ...bytes]))
  const connack = told(0x05)
  send(0x04, 0x04, 0x01, ...number16(600), ...Buffer.from(id))
  await connack
  if (!sleeps) return
  const suback = told(0x13)
  send(0x12, 0x20, ...number16(1), ...Buffer.from('plant/+/pressure'))
  await suback
  const disconnect = told(0x18)
  send(0x18, ...number16(sleeps))
  await disconnect
}
