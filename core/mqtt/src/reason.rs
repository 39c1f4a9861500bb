//! Reason codes (2.4).

use core::fmt;

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal;)*) => {
        /// Reason Code of MQTT 5.0 (table 2-6 of section 2.4). Byte 0x00 has three names; the others are
        /// [`ReasonCode::NORMAL_DISCONNECTION`] and [`ReasonCode::GRANTED_QOS_0`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum ReasonCode {
            $($(#[$doc])* $variant = $code,)*
        }

        impl ReasonCode {
            /// Every reason code, in the order of its byte.
            pub const ALL: &'static [ReasonCode] = &[$(ReasonCode::$variant),*];

            /// The reason code of a byte; `None` if the specification names none.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<ReasonCode> {
                match code {
                    $($code => Some(ReasonCode::$variant),)*
                    _ => None,
                }
            }

            /// The name that the specification gives it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(ReasonCode::$variant => $name,)*
                }
            }
        }
    };
}

reason_codes! {
    /// Success; also Normal disconnection and Granted QoS 0.
    Success = 0x00, "Success";
    /// The subscription is accepted and the maximum QoS sent will be QoS 1.
    GrantedQoS1 = 0x01, "Granted QoS 1";
    /// The subscription is accepted and any received QoS will be sent.
    GrantedQoS2 = 0x02, "Granted QoS 2";
    /// The Client wishes to disconnect but requires that the Server also publishes its Will Message.
    DisconnectWithWillMessage = 0x04, "Disconnect with Will Message";
    /// The message is accepted but there are no subscribers.
    NoMatchingSubscribers = 0x10, "No matching subscribers";
    /// No matching Topic Filter is being used by the Client.
    NoSubscriptionExisted = 0x11, "No subscription existed";
    /// Continue the authentication with another step.
    ContinueAuthentication = 0x18, "Continue authentication";
    /// Initiate a re-authentication.
    ReAuthenticate = 0x19, "Re-authenticate";
    /// The sender does not wish to reveal the reason, or none of the others applies.
    UnspecifiedError = 0x80, "Unspecified error";
    /// The received packet does not conform to the specification.
    MalformedPacket = 0x81, "Malformed Packet";
    /// An unexpected or out of order packet was received.
    ProtocolError = 0x82, "Protocol Error";
    /// The packet is valid but cannot be processed by this implementation.
    ImplementationSpecificError = 0x83, "Implementation specific error";
    /// The Server does not support the version of MQTT that the Client asked for.
    UnsupportedProtocolVersion = 0x84, "Unsupported Protocol Version";
    /// The Client Identifier is a valid string but is not allowed by the Server.
    ClientIdentifierNotValid = 0x85, "Client Identifier not valid";
    /// The Server does not accept the User Name or Password.
    BadUserNameOrPassword = 0x86, "Bad User Name or Password";
    /// The request is not authorized.
    NotAuthorized = 0x87, "Not authorized";
    /// The Server is not available.
    ServerUnavailable = 0x88, "Server unavailable";
    /// The Server is busy and cannot continue processing requests from this Client.
    ServerBusy = 0x89, "Server busy";
    /// The Client has been banned by administrative action.
    Banned = 0x8A, "Banned";
    /// The Server is shutting down.
    ServerShuttingDown = 0x8B, "Server shutting down";
    /// The authentication method is not supported or does not match the one in use.
    BadAuthenticationMethod = 0x8C, "Bad authentication method";
    /// No packet has been received for 1.5 times the Keep Alive time.
    KeepAliveTimeout = 0x8D, "Keep Alive timeout";
    /// Another connection using the same Client Identifier has connected.
    SessionTakenOver = 0x8E, "Session taken over";
    /// The Topic Filter is correctly formed but is not accepted by this Server.
    TopicFilterInvalid = 0x8F, "Topic Filter invalid";
    /// The Topic Name is correctly formed but is not accepted.
    TopicNameInvalid = 0x90, "Topic Name invalid";
    /// The Packet Identifier is already in use.
    PacketIdentifierInUse = 0x91, "Packet Identifier in use";
    /// The Packet Identifier is not known.
    PacketIdentifierNotFound = 0x92, "Packet Identifier not found";
    /// More than Receive Maximum publications were received without an acknowledgement.
    ReceiveMaximumExceeded = 0x93, "Receive Maximum exceeded";
    /// The Topic Alias is 0 or greater than the Topic Alias Maximum.
    TopicAliasInvalid = 0x94, "Topic Alias invalid";
    /// The packet is larger than the Maximum Packet Size.
    PacketTooLarge = 0x95, "Packet too large";
    /// The received data rate is too high.
    MessageRateTooHigh = 0x96, "Message rate too high";
    /// An implementation or administrative imposed limit has been exceeded.
    QuotaExceeded = 0x97, "Quota exceeded";
    /// The connection is closed due to an administrative action.
    AdministrativeAction = 0x98, "Administrative action";
    /// The payload does not match the Payload Format Indicator.
    PayloadFormatInvalid = 0x99, "Payload format invalid";
    /// The Server does not support retained messages.
    RetainNotSupported = 0x9A, "Retain not supported";
    /// The QoS is greater than the Maximum QoS of the Server.
    QoSNotSupported = 0x9B, "QoS not supported";
    /// The Client should temporarily use another server.
    UseAnotherServer = 0x9C, "Use another server";
    /// The Client should permanently use another server.
    ServerMoved = 0x9D, "Server moved";
    /// The Server does not support Shared Subscriptions.
    SharedSubscriptionsNotSupported = 0x9E, "Shared Subscriptions not supported";
    /// The connection rate limit has been exceeded.
    ConnectionRateExceeded = 0x9F, "Connection rate exceeded";
    /// The maximum connection time authorized for this connection has been exceeded.
    MaximumConnectTime = 0xA0, "Maximum connect time";
    /// The Server does not support Subscription Identifiers.
    SubscriptionIdentifiersNotSupported = 0xA1, "Subscription Identifiers not supported";
    /// The Server does not support Wildcard Subscriptions.
    WildcardSubscriptionsNotSupported = 0xA2, "Wildcard Subscriptions not supported";
}

impl ReasonCode {
    /// The name of 0x00 in a DISCONNECT.
    pub const NORMAL_DISCONNECTION: ReasonCode = ReasonCode::Success;
    /// The name of 0x00 in a SUBACK.
    pub const GRANTED_QOS_0: ReasonCode = ReasonCode::Success;

    /// The byte on the wire.
    #[inline]
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether it tells a failure: 0x80 or greater (2.4).
    #[inline]
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.code() >= 0x80
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_and_its_reason_code() {
        assert_eq!(ReasonCode::ALL.len(), 43, "table 2-6 without the two other names of 0x00");
        let known = (0..=u8::MAX).filter_map(ReasonCode::from_code).inspect(|&code| {
            assert_eq!(ReasonCode::from_code(code.code()), Some(code));
            assert_eq!(code.is_error(), code.code() & 0x80 != 0, "{code}: 2.4");
        });
        assert!(known.eq(ReasonCode::ALL.iter().copied()), "in the order of their bytes");
        assert_eq!(ReasonCode::QoSNotSupported.to_string(), "QoS not supported");
    }
}
