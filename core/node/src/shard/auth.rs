//! Verdicts of hooks, and enhanced authentication as a state machine (section 4.12).

use newtmq_base::{ConnId, Instant, RequestId};
use newtmq_mqtt::{Auth, AuthProperties, Decoder, Frame, Packet, ProtocolVersion, ReasonCode, Sender};

use super::connect::with_name;
use super::{Next, Shard};
use crate::conn::{Aside, Pending, Phase, Stage};
use crate::hooks::{Question, Verdict};
use crate::io::Outbox;

impl Shard {
    /// A hook has answered: the packet that waited for it goes on.
    pub(crate) fn on_decided(&mut self, now: Instant, request: RequestId, verdict: Verdict, out: &mut Outbox) {
        let Some(conn) = self.requests.remove(&request) else { return };
        let Some(c) = self.conn_mut(conn) else { return };
        let Some(pending) = c.rare().pending.take() else { return };
        if c.phase == Phase::Closing {
            return;
        }
        let mut decoder = Decoder::new();
        let mut bytes = &pending.packet[..];
        let frame = match decoder.next(&mut bytes, u32::MAX) {
            Ok(Some(frame)) => frame,
            Ok(None) | Err(_) => unreachable!("the packet was decoded before it was put aside"),
        };
        let next = match pending.stage {
            Stage::Authenticate => self.on_connect_verdict(now, conn, frame, verdict, out),
            Stage::Reauthenticate => self.on_reauthenticate_verdict(now, conn, verdict, out),
            Stage::Retain => unreachable!("no hook is asked about it"),
            stage @ (Stage::CheckAcl | Stage::Publish | Stage::Subscribe) => {
                self.on_packet_verdict(now, conn, frame, stage, verdict, out)
            }
        };
        if next == Next::Go {
            self.resume(now, conn, out);
        }
    }

    fn on_packet_verdict(
        &mut self,
        now: Instant,
        conn: ConnId,
        frame: Frame<'_>,
        stage: Stage,
        verdict: Verdict,
        out: &mut Outbox,
    ) -> Next {
        let version = self.live(conn).version;
        if let Ok(publish) = frame.publish(version)
            && frame.packet_type() == newtmq_mqtt::PacketType::Publish
        {
            return match verdict {
                Verdict::Deny(reason) if stage == Stage::CheckAcl => {
                    self.deny_publish(now, conn, &publish, reason, out)
                }
                Verdict::Deny(reason) => self.refuse_publish(now, conn, &publish, reason, out),
                Verdict::Each(reasons) if reasons.first().is_some_and(|reason| reason.is_error()) => {
                    self.refuse_publish(now, conn, &publish, reasons[0], out)
                }
                Verdict::Allow { .. } | Verdict::Grant(_) | Verdict::Continue(_) | Verdict::Each(_) => {
                    self.on_other_publish(now, conn, frame, &publish, Some(stage), out)
                }
            };
        }
        match frame.decode(version, Sender::Client) {
            Ok(Packet::Subscribe(subscribe)) => {
                self.on_subscribe_verdict(now, conn, frame, &subscribe, stage, verdict, out)
            }
            Ok(_) | Err(_) => unreachable!("only PUBLISH and SUBSCRIBE wait for these verdicts"),
        }
    }

    fn on_connect_verdict(
        &mut self,
        now: Instant,
        conn: ConnId,
        frame: Frame<'_>,
        verdict: Verdict,
        out: &mut Outbox,
    ) -> Next {
        match verdict {
            Verdict::Deny(reason) => self.reject_connect(now, conn, reason, out),
            Verdict::Grant(grant) if grant.until.is_some_and(|until| until <= now) => {
                self.reject_connect(now, conn, ReasonCode::NotAuthorized, out)
            }
            Verdict::Grant(grant) => {
                self.granted(conn, grant);
                self.permitted(now, conn, frame, None, out)
            }
            // A client without a method cannot take another step [MQTT-4.12.0-6].
            Verdict::Continue(_) if self.live(conn).rare().method.is_none() => {
                self.reject_connect(now, conn, ReasonCode::NotAuthorized, out)
            }
            Verdict::Continue(challenge) => {
                self.live(conn).rare().connect = Some(frame.bytes.into());
                self.send_auth(now, conn, ReasonCode::ContinueAuthentication, Some(&challenge), out);
                Next::Go
            }
            Verdict::Allow { data } => self.permitted(now, conn, frame, data.as_deref(), out),
            Verdict::Each(_) => self.reject_connect(now, conn, ReasonCode::NotAuthorized, out),
        }
    }

    /// The client may connect, as it has asked for.
    fn permitted(
        &mut self,
        now: Instant,
        conn: ConnId,
        frame: Frame<'_>,
        data: Option<&[u8]>,
        out: &mut Outbox,
    ) -> Next {
        let Ok(Packet::Connect(connect)) = frame.decode(ProtocolVersion::V5, Sender::Client) else {
            unreachable!("the CONNECT was decoded before it was put aside")
        };
        let certified = self.certified(conn);
        let connect = with_name(connect, certified.as_deref());
        let next = self.open(now, conn, &connect, frame, data, out);
        if let Some(c) = self.conn_mut(conn) {
            c.rare().connect = None;
        }
        next
    }

    /// AUTH: the next step of a CONNECT's exchange, or a re-authentication [MQTT-4.12.1-1].
    pub(crate) fn on_auth(&mut self, now: Instant, conn: ConnId, auth: &Auth<'_>, out: &mut Outbox) -> Next {
        let c = self.live(conn);
        let open = c.phase == Phase::Open;
        let method = c.rare.as_ref().and_then(|rare| rare.method.clone());
        let connect = c.rare.as_mut().and_then(|rare| rare.connect.take());
        // On an open connection the client begins; after that, and before CONNACK, it goes on.
        let goes_on = !open || c.rare.as_ref().is_some_and(|rare| rare.reauthenticating);
        let expected = if goes_on { ReasonCode::ContinueAuthentication } else { ReasonCode::ReAuthenticate };
        // The method must stay the same [MQTT-4.12.0-5]; without one there is no AUTH at all [MQTT-4.12.0-6].
        let same = method.is_some() && method.as_deref() == auth.properties.authentication_method;
        if !same || auth.reason_code != expected {
            return if open {
                self.reject(now, conn, ReasonCode::ProtocolError, out)
            } else {
                self.reject_connect(now, conn, ReasonCode::ProtocolError, out)
            };
        }
        let (client, username) = self.identity(conn, connect.as_deref());
        let data = auth.properties.authentication_data.map(Into::into);
        let peer = self.live(conn).peer.address();
        let question =
            Question::Authenticate { conn, peer, client, username, password: None, method, data, will: None };
        let request = self.ask(conn, question, out);
        let (stage, packet) = match connect {
            Some(connect) => (Stage::Authenticate, connect),
            // Nothing of the packet is needed for the verdict; any packet does as a stand-in.
            None => (Stage::Reauthenticate, Aside::from(&[0xC0, 0x00][..])),
        };
        self.live(conn).rare().pending = Some(Pending { request, stage, packet });
        Next::Hold
    }

    fn identity(&mut self, conn: ConnId, connect: Option<&[u8]>) -> (Box<str>, Option<Box<str>>) {
        let mut decoder = Decoder::new();
        if let Some(mut bytes) = connect
            && let Ok(Some(frame)) = decoder.next(&mut bytes, u32::MAX)
            && let Ok(Packet::Connect(connect)) = frame.decode(ProtocolVersion::V5, Sender::Client)
        {
            let certified = self.certified(conn);
            let connect = with_name(connect, certified.as_deref());
            let client = self.client_id_of(conn, &connect).into();
            return (client, connect.username.map(Into::into));
        }
        let c = self.live(conn);
        let username = c.rare.as_ref().and_then(|rare| rare.username.clone());
        let key = c.session;
        (self.slot(key).session.client().as_str().into(), username)
    }

    fn on_reauthenticate_verdict(&mut self, now: Instant, conn: ConnId, verdict: Verdict, out: &mut Outbox) -> Next {
        self.live(conn).rare().reauthenticating = matches!(verdict, Verdict::Continue(_));
        match verdict {
            Verdict::Allow { data } => self.send_auth(now, conn, ReasonCode::Success, data.as_deref(), out),
            Verdict::Continue(challenge) => {
                self.send_auth(now, conn, ReasonCode::ContinueAuthentication, Some(&challenge), out);
            }
            // No DISCONNECT has this reason (section 3.14.2.1).
            Verdict::Deny(ReasonCode::BadUserNameOrPassword) => {
                return self.reject(now, conn, ReasonCode::NotAuthorized, out);
            }
            // A failed re-authentication ends the connection (section 4.12.1).
            Verdict::Deny(reason) => return self.reject(now, conn, reason, out),
            // What a connection may do is not changed by proving again who it is.
            Verdict::Grant(_) | Verdict::Each(_) => return self.reject(now, conn, ReasonCode::NotAuthorized, out),
        }
        Next::Go
    }

    fn send_auth(&mut self, now: Instant, conn: ConnId, reason: ReasonCode, data: Option<&[u8]>, out: &mut Outbox) {
        let method = self.live(conn).rare().method.clone();
        let properties = AuthProperties {
            authentication_method: method.as_deref(),
            authentication_data: data,
            ..AuthProperties::default()
        };
        self.send(now, conn, &Packet::Auth(Auth { reason_code: reason, properties }), out);
    }
}
