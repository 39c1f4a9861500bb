//! Client libraries of other projects, over each transport: paho-mqtt and aiomqtt in Python, MQTT.js in Node.js and in
//! a browser; mqtt-sn-12 and mqttsn for MQTT-SN. What they do is in `tests/clients`, a program for each that fails if anything is not as it should be.

use std::process::Command;

use rustix::process::Signal;

use crate::broker::{Broker, Process, Scratch, clean, newtmq};

/// Runs a program of `tests/clients` against a broker of its own.
fn run(interpreter: &str, script: &str, scheme: &str) {
    let scratch = Scratch::new(&format!("{script}-{scheme}"));
    scratch.certificates("certs", &[]);
    let broker = Broker::with_tls(&scratch, &["listener.ws.t.bind=127.0.0.1:0"]);
    let listener = if scheme == "mqtt" { "external" } else { "t" };
    let mut command = clean(Command::new(interpreter));
    command.arg(format!("{}/tests/clients/{script}", env!("CARGO_MANIFEST_DIR")));
    command.arg(format!("{scheme}://{}", broker.address_of(scheme, listener)));
    command.arg(scratch.file("certs/ca.pem")).arg(scratch.file("certs/cert.pem"));
    // Where Node.js looks for packages.
    command.envs(std::env::var_os("NODE_PATH").map(|path| ("NODE_PATH", path)));
    let mut process = Process::start(command);
    let code = process.wait().code();
    let seen = process.stdout.to_end();
    assert!(code == Some(0) && seen.ends_with(" passed"), "{code:?}: {seen}\n{}", process.stderr.to_end());
    broker.stays_well();
}

/// A Python that has the libraries.
fn python() -> String {
    std::env::var("NEWTMQ_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

macro_rules! over {
    ($library:ident, $needs:literal, $interpreter:expr, $script:literal: $($scheme:ident)+) => {
        mod $library {
            $(
                #[test]
                #[ignore = $needs]
                fn $scheme() {
                    super::run($interpreter, $script, stringify!($scheme));
                }
            )+
        }
    };
}

over!(paho, "needs paho-mqtt", &super::python(), "paho_client.py": mqtt mqtts ws wss);
over!(aiomqtt, "needs aiomqtt", &super::python(), "aiomqtt_client.py": mqtt mqtts ws wss);
over!(mqttjs, "needs Node.js and MQTT.js", "node", "mqttjs_client.js": mqtt mqtts ws wss);
over!(chromium, "needs Node.js, MQTT.js, playwright-core and Chromium", "node", "browser_client.js": ws wss);

/// Devices that speak MQTT-SN, before and after the broker is started again.
#[test]
#[ignore = "needs mqtt-sn-12, mqttsn and paho-mqtt"]
fn mqtt_sn() {
    let scratch = Scratch::new("mqtt-sn");
    let sets = [
        "listener.sn.external.bind=127.0.0.1:0",
        "mqtt.sn.enable_qos3=on",
        "mqtt.sn.predefined.topic.7=predefined/seven",
    ];
    for phase in ["before", "after"] {
        let mut broker = Broker::of(newtmq(), &sets, &["--data", &scratch.file("data")]);
        let mut command = clean(Command::new(python()));
        command.arg(format!("{}/tests/clients/mqtt_sn_client.py", env!("CARGO_MANIFEST_DIR")));
        command.arg(broker.address_of("mqtt-sn", "external").to_string()).arg(broker.address.to_string()).arg(phase);
        let mut process = Process::start(command);
        let code = process.wait().code();
        let seen = process.stdout.to_end();
        assert!(code == Some(0) && seen.ends_with(" passed"), "{code:?}: {seen}\n{}", process.stderr.to_end());
        broker.process.signal(Signal::TERM);
        assert!(broker.process.wait().success());
        broker.assert_log_is_clean();
    }
}
