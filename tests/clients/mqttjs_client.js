#!/usr/bin/env node
// What a program with MQTT.js does in Node.js, against a running broker: mqttjs_client.js URL CA
//
// URL is mqtt://HOST:PORT, mqtts:, ws: or wss:; CA is the file of the authority to trust, and no other.
// Exit status 0 and a last line 'N passed' if all is well.
'use strict'

const fs = require('node:fs')
const mqtt = require('mqtt')
require('./mqttjs_scenarios.js')

const [url, ca] = process.argv.slice(2)
const path = url.startsWith('ws') ? '/mqtt' : ''
globalThis.mqttjsScenarios(mqtt, url + path, { ca: fs.readFileSync(ca) }, console.log).catch((error) => {
  console.error(error)
  process.exit(1)
})
