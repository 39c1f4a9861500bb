//! What the clients do. Of twenty clients, eight are in pairs that check each other; the others make trouble.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use newtmq_base::Rng;
use newtmq_mqtt::{ProtocolVersion, QoS};
use tokio::time::{sleep, timeout};

use crate::client::{Client, Heard, Settings};
use crate::run::Shared;

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

const PINGREQ: &[u8] = &[0xC0, 0];

/// One client's life.
pub async fn play(index: u32, seed: u64, shared: Arc<Shared>) {
    let mut rng = Rng::from_number(seed << 32 | u64::from(index));
    let version = if rng.below(2) == 0 { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
    let settings = Settings { id: format!("soak-{index}"), version, clean_start: true, expiry: 0, will: None };
    while !shared.stopped() {
        let rng = &mut rng;
        let played = match index % 20 {
            0..8 => pair(index, rng, &settings, &shared).await,
            8 | 9 => listen("soak/+/all/#", rng, &settings, &shared).await,
            10 | 11 => listen(&format!("$share/g{}/soak/shared/#", index % 3), rng, &settings, &shared).await,
            12 | 13 => hop(rng, &settings, &shared).await,
            14 | 15 => retain(rng, &settings, &shared).await,
            16 => dawdle(rng, &settings, &shared).await,
            17 => die(rng, &settings, &shared).await,
            18 => offend(rng, &settings, &shared).await,
            _ => idle(&settings, &shared).await,
        };
        if let Err(error) = played
            && !shared.stopped()
        {
            if !matches!(index % 20, 16..=18) {
                shared.error(&format!("client {index}: {error}"));
            }
            sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn pause(rng: &mut Rng, millis: u64) {
    sleep(Duration::from_millis(1 + rng.below(2 * millis))).await;
}

/// Publishes numbers to itself by way of the broker, some at a time, and expects each exactly once and in order.
async fn pair(index: u32, rng: &mut Rng, settings: &Settings, shared: &Arc<Shared>) -> io::Result<()> {
    let mut subscriber = Client::connect(settings, shared).await?;
    let publisher = Settings { id: format!("{}-publisher", settings.id), ..settings.clone() };
    let mut publisher = Client::connect(&publisher, shared).await?;
    let qos = QOS[index as usize % 3];
    let topic = format!("soak/{index}/all/{}", qos as u8);
    subscriber.subscribe(&topic, qos).await?;
    subscriber.hear().await?;
    let mut number = 0_u64;
    // A life of a few minutes, then both come anew.
    for _ in 0..rng.below(300) + 20 {
        if shared.stopped() {
            break;
        }
        let burst = 1 + rng.below(8);
        for ahead in 0..burst {
            publisher.publish(&topic, (number + ahead).to_string().as_bytes(), qos, false).await?;
            if rng.below(20) == 0 {
                publisher.publish("soak/shared/x", b"work", QoS::AtLeastOnce, false).await?;
            }
        }
        for _ in 0..burst {
            let expected = number.to_string();
            loop {
                let heard = timeout(Duration::from_secs(60), subscriber.hear()).await;
                let Ok(heard) = heard else {
                    shared.error(&format!("{topic}: {expected} does not come"));
                    return Ok(());
                };
                if let Heard::Message { payload, qos, id, .. } = heard? {
                    if payload != expected.as_bytes() {
                        let payload = String::from_utf8_lossy(&payload);
                        shared.error(&format!("{topic}: {payload} instead of {expected}"));
                    }
                    subscriber.acknowledge(qos, id).await?;
                    break;
                }
            }
            number += 1;
        }
        // With QoS 0 it says nothing otherwise, and its Keep Alive runs out.
        subscriber.send_bytes(PINGREQ).await?;
        // Acknowledgements of the publisher, as they come.
        while let Ok(heard) = timeout(Duration::from_millis(1), publisher.hear()).await {
            heard?;
        }
        pause(rng, 1500).await;
    }
    publisher.leave().await;
    subscriber.leave().await;
    Ok(())
}

/// Takes what comes for a while.
async fn take(client: &mut Client, time: Duration) -> io::Result<()> {
    let until = tokio::time::Instant::now() + time;
    while let Ok(heard) = tokio::time::timeout_at(until, client.hear()).await {
        if let Heard::Message { qos, id, .. } = heard? {
            client.acknowledge(qos, id).await?;
        }
    }
    Ok(())
}

async fn listen(filter: &str, rng: &mut Rng, settings: &Settings, shared: &Arc<Shared>) -> io::Result<()> {
    let mut client = Client::connect(settings, shared).await?;
    // A tenth of all pairs, else a few hundred such clients would be most of the load.
    let filter = filter.replace('+', &(rng.below(500) * 10).to_string());
    client.subscribe(&filter, QOS[rng.below(3) as usize]).await?;
    for _ in 0..10 {
        if shared.stopped() {
            break;
        }
        take(&mut client, Duration::from_millis(500 + rng.below(5000))).await?;
        client.send_bytes(PINGREQ).await?;
    }
    client.leave().await;
    Ok(())
}

/// Comes and goes with one session, at times while its last connection is still open.
async fn hop(rng: &mut Rng, settings: &Settings, shared: &Arc<Shared>) -> io::Result<()> {
    let settings = Settings { clean_start: false, expiry: 3600, ..settings.clone() };
    let mut client = Client::connect(&settings, shared).await?;
    if !client.session_present {
        client.subscribe(&format!("soak/hop/{}", settings.id), QoS::AtLeastOnce).await?;
        client.subscribe("soak/shared/x", QoS::AtMostOnce).await?;
    }
    client.publish(&format!("soak/hop/{}", settings.id), b"me", QoS::AtLeastOnce, false).await?;
    take(&mut client, Duration::from_millis(rng.below(4000))).await?;
    match rng.below(3) {
        0 => client.leave().await,
        1 => drop(client),
        _ => {
            let mut next = Client::connect(&settings, shared).await?;
            if !next.session_present {
                shared.error(&format!("{}: its session is gone", settings.id));
            }
            take(&mut next, Duration::from_millis(rng.below(1000))).await?;
            drop(client);
        }
    }
    pause(rng, 2000).await;
    Ok(())
}

/// Sets and clears retained messages, and reads them.
async fn retain(rng: &mut Rng, settings: &Settings, shared: &Arc<Shared>) -> io::Result<()> {
    let mut client = Client::connect(settings, shared).await?;
    for _ in 0..20 {
        if shared.stopped() {
            break;
        }
        let topic = format!("soak/retained/{}/{}", rng.below(20), rng.below(50));
        let payload: &[u8] = if rng.below(3) == 0 { b"" } else { b"kept" };
        client.publish(&topic, payload, QOS[rng.below(3) as usize], true).await?;
        if rng.below(4) == 0 {
            client.subscribe(&format!("soak/retained/{}/+", rng.below(20)), QoS::AtLeastOnce).await?;
        }
        take(&mut client, Duration::from_millis(rng.below(2000))).await?;
    }
    client.leave().await;
    Ok(())
}

/// Subscribes and hardly reads.
async fn dawdle(rng: &mut Rng, settings: &Settings, shared: &Arc<Shared>) -> io::Result<()> {
    let mut client = Client::connect(settings, shared).await?;
    client.subscribe("soak/shared/#", QOS[rng.below(3) as usize]).await?;
    for _ in 0..20 {
        if shared.stopped() {
            break;
        }
        client.hear().await?;
        client.send_bytes(PINGREQ).await?;
        pause(rng, 1000).await;
    }
    Ok(())
}

/// Has a will, and breaks off.
async fn die(rng: &mut Rng, settings: &Settings, shared: &Arc<Shared>) -> io::Result<()> {
    let settings = Settings { will: Some("soak/shared/will".to_owned()), ..settings.clone() };
    let mut client = Client::connect(&settings, shared).await?;
    take(&mut client, Duration::from_millis(rng.below(8000))).await?;
    drop(client);
    pause(rng, 2000).await;
    Ok(())
}

/// Sends what nobody may send.
async fn offend(rng: &mut Rng, settings: &Settings, shared: &Arc<Shared>) -> io::Result<()> {
    let mut client = Client::connect(settings, shared).await?;
    let mut bytes = vec![0; 1 + rng.below(200) as usize];
    for byte in &mut bytes {
        *byte = rng.below(256) as u8;
    }
    client.send_bytes(&bytes).await?;
    let _ = timeout(Duration::from_secs(5), client.hear()).await;
    drop(client);
    pause(rng, 3000).await;
    Ok(())
}

async fn idle(settings: &Settings, shared: &Arc<Shared>) -> io::Result<()> {
    let mut client = Client::connect(settings, shared).await?;
    for _ in 0..4 {
        if shared.stopped() {
            break;
        }
        client.send_bytes(PINGREQ).await?;
        take(&mut client, Duration::from_secs(10)).await?;
    }
    client.leave().await;
    Ok(())
}
