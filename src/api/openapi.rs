//! The OpenAPI document, from the table of routes.

use serde_json::{Map, Value, json};

use super::routes::{LIMIT_MAX, PAGE_MAX, ROUTES, Route};

/// The document.
#[must_use]
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(format!("/api/v3{}", route.path)).or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = operation(route);
    }
    for (path, about, kind) in OPEN {
        let operation = json!({
            "operationId": path.trim_start_matches('/').replace('/', "-"),
            "summary": about,
            "security": [],
            "responses": open_responses(kind, path),
        });
        paths.insert((*path).to_owned(), json!({ "get": operation }));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "NewtMQ",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What an operator asks of a broker. The paths below /api/v3 are those of EMQ X 3.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "security": [{ "application": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "application": { "type": "http", "scheme": "basic" } },
            "schemas": schemas(),
            "responses": responses(),
        },
    })
}

/// Paths that need no application.
pub(super) const OPEN: &[(&str, &str, &str)] = &[
    ("/status", "Whether the node runs, as EMQ X tells it.", "text/plain"),
    ("/health/live", "The process lives.", "text/plain"),
    ("/health/ready", "Clients should be sent here; otherwise why not.", "text/plain"),
    ("/metrics", "Metrics for Prometheus.", "text/plain"),
    ("/api/openapi.json", "This document.", "application/json"),
];

fn open_responses(kind: &str, path: &str) -> Value {
    let schema = if kind == "text/plain" { json!({ "type": "string" }) } else { json!({ "type": "object" }) };
    let mut all = json!({ "200": { "description": "It is so.", "content": { kind: { "schema": schema } } } });
    refused(&mut all, &["408", "503"]);
    if path == "/metrics" {
        refused(&mut all, &["401", "429"]);
    }
    if path == "/health/ready" {
        all["503"] = json!({ "description": "Not yet, or no more.", "content": { kind: { "schema": schema } } });
    }
    all
}

fn operation(route: &Route) -> Value {
    let mut parameters: Vec<Value> = path_parameters(route.path)
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } }))
        .collect();
    if route.paged {
        for (name, most) in [("_page", PAGE_MAX), ("_limit", LIMIT_MAX)] {
            let schema = json!({ "type": "integer", "minimum": 1, "maximum": most });
            parameters.push(json!({ "name": name, "in": "query", "schema": schema }));
        }
    }
    for name in route.query {
        let schema = json!({ "type": "string", "minLength": 1 });
        parameters.push(json!({ "name": name, "in": "query", "required": true, "schema": schema }));
    }
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.about,
        "parameters": parameters,
        "responses": { "200": { "description": "Done, or what was asked for.", "content": { "application/json": { "schema": answer(route) } } } },
    });
    refused(&mut operation["responses"], &["400", "401", "403", "404", "408", "409", "413", "429", "503"]);
    // It has no body: nothing was read that could be answered.
    operation["responses"]["431"] = json!({ "description": "The path, the query or the fields are too long." });
    if !route.body.is_empty() {
        let schema = json!({ "$ref": format!("#/components/schemas/{}", route.body) });
        operation["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    operation
}

fn refused(responses: &mut Value, codes: &[&str]) {
    for code in codes {
        responses[*code] = json!({ "$ref": "#/components/responses/Refused" });
    }
}

pub(super) fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// The envelope with its data; an error of EMQ X comes with the same status.
fn answer(route: &Route) -> Value {
    let data = match route.data.strip_prefix("[]") {
        Some(name) => json!({ "type": "array", "items": { "$ref": format!("#/components/schemas/{name}") } }),
        None => json!({ "$ref": format!("#/components/schemas/{}", route.data) }),
    };
    let mut properties = json!({ "code": { "const": 0 } });
    let mut required = vec!["code"];
    if !route.data.is_empty() {
        properties["data"] = data;
        required.push("data");
    }
    if route.paged {
        properties["meta"] = json!({ "$ref": "#/components/schemas/Meta" });
        required.push("meta");
    }
    let good =
        json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false });
    json!({ "oneOf": [good, { "$ref": "#/components/schemas/Fault" }] })
}

fn responses() -> Value {
    let content = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/Fault" } } });
    json!({ "Refused": { "description": "Why it is not done.", "content": content } })
}

/// `name: type`, with `?` for null.
fn object(fields: &[(&str, &str)]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, kind) in fields {
        required.push(*name);
        properties.insert((*name).to_owned(), of_kind(kind));
    }
    json!({ "type": "object", "properties": properties, "required": required })
}

fn of_kind(kind: &str) -> Value {
    match kind {
        "null" => json!({ "type": "null" }),
        "string?" => json!({ "type": ["string", "null"] }),
        "integer?" => json!({ "type": ["integer", "null"] }),
        "object?" => json!({ "type": ["object", "null"] }),
        "string" | "integer" | "boolean" | "object" => json!({ "type": kind }),
        kind => match kind.strip_prefix("[]") {
            Some("") => json!({ "type": "array" }),
            Some(name) => json!({ "type": "array", "items": { "$ref": format!("#/components/schemas/{name}") } }),
            None => json!({ "$ref": format!("#/components/schemas/{kind}") }),
        },
    }
}

fn schemas() -> Value {
    let counts = json!({ "type": "object", "additionalProperties": { "type": "integer", "minimum": 0 } });
    let qos = json!({ "type": "integer", "minimum": 0, "maximum": 2 });
    let text = json!({ "type": "string" });
    let fault = json!({
        "type": "object",
        "properties": { "code": { "type": "integer", "minimum": 1 }, "message": text },
        "required": ["code", "message"],
        "additionalProperties": false,
    });
    let some = [("node", "string"), ("client_id", "string"), ("topic", "string")];
    let mut all = json!({
        "Fault": fault,
        "Meta": object(&[("page", "integer"), ("limit", "integer"), ("count", "integer")]),
        "Counts": counts,
        "Broker": object(&[
            ("node", "string"), ("node_status", "string"), ("version", "string"), ("sysdescr", "string"),
            ("uptime", "string"), ("uptime_seconds", "integer"), ("datetime", "string"), ("otp_release", "null"),
        ]),
        "Node": object(&[("name", "string"), ("node", "string"), ("node_status", "string")]),
        "Connection": object(&[
            ("client_id", "string"), ("username", "string?"), ("node", "string"), ("ipaddress", "string"),
            ("port", "integer"), ("proto_name", "string"), ("proto_ver", "integer"), ("clean_start", "boolean"),
            ("keepalive", "integer"), ("connected_at", "string"), ("mountpoint", "string?"),
        ]),
        "Session": object(&[
            ("client_id", "string"), ("username", "string?"), ("node", "string"), ("clean_start", "boolean"),
            ("expiry_interval", "integer"), ("created_at", "string"), ("subscriptions_count", "integer"),
            ("max_inflight", "integer"), ("inflight_len", "integer"), ("max_mqueue", "integer"),
            ("mqueue_len", "integer"), ("awaiting_rel_len", "integer"), ("connected", "boolean"), ("durable", "boolean"),
        ]),
        "Subscription": object(&[some[0], some[1], some[2], ("qos", "integer")]),
        "Route": object(&[some[0], some[2]]),
        "Retained": object(&[some[0], some[2], ("qos", "integer"), ("payload_bytes", "integer")]),
        "Plugin": object(&[
            ("name", "string"), ("version", "string"), ("description", "string"), ("active", "boolean"), ("type", "string"),
        ]),
        "Listener": object(&[
            ("protocol", "string"), ("name", "string"), ("listen_on", "string"), ("acceptors", "integer"),
            ("max_conns", "integer"), ("current_conns", "integer"), ("shutdown_count", "[]"),
        ]),
        "PluginsOfNode": object(&[some[0], ("plugins", "[]Plugin")]),
        "ListenersOfNode": object(&[some[0], ("listeners", "[]Listener")]),
        "MetricsOfNode": object(&[some[0], ("metrics", "Counts")]),
        "StatsOfNode": object(&[some[0], ("stats", "Counts")]),
        "Ledger": object(&[
            ("accepted", "integer"), ("unmatched", "integer"), ("matched", "integer"), ("delivered", "integer"),
            ("waiting", "integer"), ("dropped", "Counts"), ("denied", "integer"), ("retained_sent", "integer"),
        ]),
        "Where": object(&[("client", "object"), ("topic", "object"), ("traced", "[]TraceRecord")]),
        "Device": object(&[
            some[0], some[1], ("listener", "string"), ("address", "string?"), ("state", "string"), ("keepalive", "integer"),
            ("sleep", "integer"), ("heard_seconds_ago", "integer"), ("mqueue_len", "integer"), ("topic_ids", "integer"),
        ]),
        "Trace": object(&[
            ("kind", "string"), ("what", "string"), ("started", "string"), ("records", "integer"), ("forgotten", "integer"),
        ]),
        "TraceRecord": object(&[
            ("at", "integer"), ("time", "string"), some[0], ("event", "string"), ("client_id", "string"), ("topic", "string?"),
            ("qos", "integer?"), ("waits", "boolean"), ("why", "string"),
        ]),
        "Alarm": object(&[
            ("id", "string"), ("severity", "string"), ("title", "string"), ("summary", "string"), ("ts", "integer"),
            ("raised_at", "string"), ("cleared_at", "string?"),
        ]),
        "AlarmsOfNode": object(&[some[0], ("alarms", "[]Alarm")]),
        "Setting": object(&[
            ("key", "string"), ("value", "string"), ("set", "boolean"), ("reloadable", "boolean"), ("about", "string"),
        ]),
        "ConfigsOfNode": object(&[some[0], ("configs", "[]Setting")]),
        "Access": object(&[
            ("allow_anonymous", "boolean"), ("password_file", "string?"), ("password_file_error", "string?"), ("users", "[]"),
            ("acl_file", "string?"), ("acl_file_error", "string?"), ("rules", "[]"), ("acl_nomatch", "string"),
            ("acl_deny_action", "string"),
        ]),
        "Cluster": object(&[
            ("name", "string"), ("member", "boolean"), ("leader", "string?"), ("term", "integer"), ("applied", "integer"),
            ("nodes", "[]"),
        ]),
        "ViewOfNode": object(&[some[0], ("cluster", "Cluster")]),
        "Examination": object(&[("ok", "boolean"), ("verdict", "string"), ("findings", "[]"), ("nodes", "[]")]),
        "App": object(&[("app_id", "string"), ("name", "string"), ("status", "boolean"), ("desc", "string"), ("expired", "null")]),
        "UsernameAccount": object(&[("username", "string")]),
        "ClientIdAccount": object(&[("clientid", "string")]),
        "Ban": object(&[
            ("who", "string"), ("as", "string"), ("reason", "string"), ("by", "string"), ("at", "integer"),
            ("until", "integer?"),
        ]),
        "Audit": object(&[
            ("at", "string"), ("by", "string"), ("from", "string"), ("action", "string"), ("what", "string"),
            ("done", "boolean"), ("why", "string?"),
        ]),
        "AppSecret": object(&[("app_id", "string"), ("name", "string"), ("secret", "string")]),
    });
    let topic = json!({ "type": "string", "minLength": 1, "maxLength": 65_535 });
    let id = json!({ "type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$" });
    all["Publish"] = json!({
        "type": "object",
        "properties": {
            "topic": topic, "topics": text, "payload": {}, "qos": qos,
            "retain": { "oneOf": [{ "type": "boolean" }, { "enum": [0, 1] }] }, "client_id": text,
        },
        "oneOf": [{ "required": ["topic"] }, { "required": ["topics"] }],
    });
    all["Subscribe"] = json!({
        "type": "object",
        "properties": { "topic": topic, "topics": text, "qos": qos, "client_id": text },
        "required": ["client_id"],
        "oneOf": [{ "required": ["topic"] }, { "required": ["topics"] }],
    });
    all["Unsubscribe"] = json!({
        "type": "object",
        "properties": { "topic": topic, "client_id": text },
        "required": ["client_id", "topic"],
    });
    all["NewTrace"] = json!({
        "type": "object",
        "properties": { "kind": { "enum": ["client", "topic"] }, "what": topic },
        "required": ["kind", "what"],
    });
    all["NewApp"] = json!({
        "type": "object",
        "properties": { "app_id": id, "name": { "type": "string", "maxLength": 255, "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]*$" } },
        "required": ["app_id", "name"],
    });
    // Lengths are counted in bytes here, and in characters there.
    let name = json!({ "type": "string", "minLength": 1, "maxLength": 500, "pattern": "^[^\\x00]*$" });
    let password = json!({ "type": "string", "minLength": 1, "maxLength": 4096 });
    for (schema, key) in [("NewUsername", "username"), ("NewClientId", "clientid")] {
        all[schema] = json!({
            "type": "object",
            "properties": { key: name, "password": password },
            "required": [key, "password"],
        });
    }
    all["NewPassword"] = json!({ "type": "object", "properties": { "password": password }, "required": ["password"] });
    let short = json!({ "type": ["string", "null"], "maxLength": 256 });
    all["NewBan"] = json!({
        "type": "object",
        "properties": {
            "who": { "type": "string", "minLength": 1, "maxLength": 490, "pattern": "^[^\\x00]*$" },
            "as": { "enum": newtmq_access::BanKind::ALL.map(newtmq_access::BanKind::name) },
            "reason": short, "by": short, "until": { "type": ["integer", "null"], "minimum": 0 },
        },
        "required": ["who", "as"],
    });
    all["AppStatus"] =
        json!({ "type": "object", "properties": { "status": { "type": "boolean" } }, "required": ["status"] });
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every `$ref` of a document.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(all) => all.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn the_document_has_each_route_and_all_that_it_names() {
        let document = document();
        let mut ids = BTreeSet::new();
        for route in ROUTES {
            let operation = &document["paths"][format!("/api/v3{}", route.path)][route.method.to_lowercase()];
            assert_eq!(operation["operationId"], route.id);
            assert!(ids.insert(route.id), "{} is there twice", route.id);
            let named = operation["parameters"].as_array().unwrap().iter().filter(|of| of["in"] == "path").count();
            assert_eq!(named, route.path.matches('{').count(), "{}", route.path);
        }
        let operations =
            document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().keys());
        assert_eq!(operations.count(), ROUTES.len() + OPEN.len());
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in found {
            assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
        }
    }
}
