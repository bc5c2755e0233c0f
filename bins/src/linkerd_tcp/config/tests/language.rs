//! The tables that schema and reference are made of say what is really read.

use serde_json::Value;
use serde_json::json;

use super::super::language::PROXIES;
use super::super::language::ROUTERS;
use super::*;
use crate::kit::load::language::Table;
use crate::kit::load::language::Takes;
use crate::kit::load::yaml;

/// Every field of a table, with values that fit together.
fn full(table: &'static Table) -> Value {
    let fields = table.fields().map(|field| {
        let value = match (table.name, field.name) {
            ("client global" | "client config", "tls") | ("client of a proxy", "tls") => {
                full_of(&field.takes)
            }
            (_, "label") => json!("one"),
            // Each may listen but once.
            ("tcp server", "addr") => json!("127.0.0.1:1"),
            ("tls server", "addr") => json!("127.0.0.1:2"),
            ("admin of proxies", "addr") => json!("127.0.0.1:3"),
            ("server of a router", "port") => json!(4),
            ("admin of routers", "port") => json!(5),
            ("namerd of a proxy", "addr") => Value::Null,
            (_, "url" | "baseUrl") => json!("https://namerd.example:4180"),
            (_, "ip") => json!("127.0.0.1"),
            (_, "path" | "dstName" | "prefix") => json!("/svc/web"),
            (_, "dnsName") => json!("web.example"),
            _ => full_of(&field.takes),
        };
        (field.name.to_owned(), value)
    });
    Value::Object(fields.filter(|(_, value)| !value.is_null()).collect())
}

fn full_of(takes: &Takes) -> Value {
    match takes {
        Takes::Text(_) => json!("a-text"),
        Takes::File => json!("a.pem"),
        // In the range of all that have one; 1 is the least of most.
        Takes::Integer(least, most) => json!(2048.clamp(*least, *most)),
        Takes::Number => json!(0.5),
        Takes::Flag => json!(false),
        Takes::Choice(choices) | Takes::Version(choices) => json!(choices[0]),
        Takes::Refused(_) => Value::Null,
        Takes::One(table) => full(table),
        Takes::Either(tables) => full(tables.last().unwrap()),
        Takes::Many(_, inner) => json!([full_of(inner)]),
        Takes::Map(keys, inner) if keys.starts_with("server names") => json!({ "*.example": full_of(inner) }),
        Takes::Map(_, inner) => json!({ "/svc/web": full_of(inner) }),
    }
}

/// Every value of a document that belongs to a field, by its path, with what the field takes and whether it is needed.
fn visit(value: &Value, table: &'static Table, path: &str, found: &mut Vec<(String, &'static Takes, bool)>) {
    for field in table.fields() {
        let Some(inner) = value.get(field.name) else { continue };
        let path = format!("{path}/{}", field.name.replace('~', "~0").replace('/', "~1"));
        found.push((path.clone(), &field.takes, field.is_required));
        visit_inner(inner, &field.takes, &path, found);
    }
}

fn visit_inner(
    value: &Value,
    takes: &'static Takes,
    path: &str,
    found: &mut Vec<(String, &'static Takes, bool)>,
) {
    match takes {
        Takes::One(table) => visit(value, table, path, found),
        Takes::Either(tables) => {
            let is_of = |table: &&&'static Table| {
                let kind = table.field("kind").unwrap();
                matches!(kind.takes, Takes::Choice(kinds) if value["kind"] == kinds[0])
            };
            visit(value, tables.iter().find(is_of).unwrap(), path, found);
        }
        Takes::Many(_, inner) => {
            for (n, value) in value.as_array().into_iter().flatten().enumerate() {
                visit_inner(value, inner, &format!("{path}/{n}"), found);
            }
        }
        Takes::Map(_, inner) => {
            for (key, value) in value.as_object().into_iter().flatten() {
                visit_inner(value, inner, &format!("{path}/{}", key.replace('/', "~1")), found);
            }
        }
        _ => {}
    }
}

/// Documents that have every field between them.
fn documents() -> Vec<(&'static Table, Value)> {
    let (proxies, routers) = (full(&PROXIES), full(&ROUTERS));
    let mut plain = proxies.clone();
    plain["proxies"][0]["servers"][0] = full(PROXIES_TCP);
    let mut namerd = routers.clone();
    let router = ROUTERS.field("routers").unwrap();
    let Takes::Many(_, Takes::One(router)) = &router.takes else { panic!("{router:?}") };
    for name in ["interpreter", "client"] {
        let Takes::Either(kinds) = &router.field(name).unwrap().takes else { panic!("{name}") };
        namerd["routers"][0][name] = full(kinds[0]);
    }
    vec![(&PROXIES, proxies), (&PROXIES, plain), (&ROUTERS, routers), (&ROUTERS, namerd)]
}

const PROXIES_TCP: &Table = &super::super::language::PROXY_TCP;

fn is_good(document: &Value) -> Result<(), String> {
    parse(&yaml(document), "f").map(drop).map_err(|error| error.to_string())
}

#[test]
fn every_field_is_read() {
    for (_, document) in documents() {
        assert_eq!(is_good(&document), Ok(()), "{}", yaml(&document));
    }
}

/// Changes a value, or takes it away.
fn with(document: &Value, path: &str, value: Option<Value>) -> Value {
    let mut document = document.clone();
    match value {
        Some(value) => *document.pointer_mut(path).unwrap() = value,
        None => {
            let (parent, name) = path.rsplit_once('/').unwrap();
            document.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
        }
    }
    document
}

#[test]
fn what_is_needed_and_within_bounds_is_as_the_tables_say() {
    let mut looked_at = 0;
    for (table, document) in documents() {
        let mut fields = Vec::new();
        visit(&document, table, "", &mut fields);
        for (path, takes, is_required) in fields {
            looked_at += 1;
            let without = is_good(&with(&document, &path, None));
            // One of two is needed; a jitter needs a lifetime.
            let exceptions = ["/url", "connectionLifetimeSecs"];
            if !exceptions.iter().any(|end| path.ends_with(end)) {
                assert_eq!(without.is_err(), is_required, "{path}: {without:?}");
            }
            // Nothing takes a mapping with a key that nobody knows, or a list of nothing known.
            let strange = is_good(&with(&document, &path, Some(json!({ "what is this": [] }))));
            assert!(strange.is_err(), "{path}");
            match takes {
                Takes::Integer(least, most) => {
                    let mut good = vec![*least];
                    good.extend((*most < u64::MAX).then_some(*most));
                    for value in good {
                        // A port that is taken by another server of the document.
                        let is_taken = [1, 2, 3, 4, 5].contains(&value) && path.ends_with("/port");
                        let read = is_good(&with(&document, &path, Some(json!(value))));
                        assert!(read.is_ok() || is_taken, "{path} {value}: {read:?}");
                    }
                    let bad = least.checked_sub(1).into_iter().chain(most.checked_add(1));
                    for value in bad {
                        assert!(
                            is_good(&with(&document, &path, Some(json!(value)))).is_err(),
                            "{path} {value}"
                        );
                    }
                }
                Takes::Choice(choices) | Takes::Version(choices) if !path.ends_with("/kind") => {
                    for choice in *choices {
                        assert_eq!(is_good(&with(&document, &path, Some(json!(choice)))), Ok(()), "{path}");
                    }
                    assert!(is_good(&with(&document, &path, Some(json!("another")))).is_err(), "{path}");
                }
                Takes::Many(least, _) => {
                    let read = is_good(&with(&document, &path, Some(json!([]))));
                    // Its name must have endpoints then, or TLS an identity: that is said elsewhere.
                    assert_eq!(read.is_err(), *least > 0, "{path}: {read:?}");
                }
                Takes::Flag => {
                    assert!(is_good(&with(&document, &path, Some(json!("yes")))).is_err(), "{path}")
                }
                _ => {}
            }
        }
    }
    assert!(looked_at > 150, "{looked_at}");
}

#[test]
fn other_names_mean_the_same() {
    for (table, document) in documents() {
        let mut fields = Vec::new();
        visit(&document, table, "", &mut fields);
        for (path, ..) in fields {
            let (parent, name) = path.rsplit_once('/').unwrap();
            let Some(also) =
                [("certs", "certPaths"), ("privateKey", "privateKeyPath"), ("dstName", "dstPath")]
                    .into_iter()
                    .find_map(|(own, also)| (own == name).then_some(also))
            else {
                continue;
            };
            let mut renamed = document.clone();
            let fields = renamed.pointer_mut(parent).unwrap().as_object_mut().unwrap();
            let value = fields.remove(name).unwrap();
            fields.insert(also.to_owned(), value);
            let (one, other) = (good_of(&document), good_of(&renamed));
            assert_eq!(one.to_value(), other.to_value(), "{path}");
        }
    }
}

fn good_of(document: &Value) -> Config {
    parse(&yaml(document), "f").unwrap().0
}

/// Whether a value fits a schema, as far as the schemas here go.
fn fits(value: &Value, schema: &Value, root: &Value) -> bool {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.strip_prefix("#/$defs/").unwrap().replace("%20", " ");
        return fits(value, &root["$defs"][&name], root);
    }
    let each = |key: &str| schema[key].as_array().map(|all| all.iter());
    let is_of_type = match schema["type"].as_str() {
        None => true,
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64(),
        Some("number") => value.is_number(),
        Some(other) => panic!("{other}"),
    };
    let bounds = |key: &str| schema[key].as_f64();
    let number = value.as_f64().unwrap_or_default();
    let rest = schema.get("additionalProperties");
    is_of_type
        && bounds("minimum").is_none_or(|least| number >= least)
        && bounds("maximum").is_none_or(|most| number <= most)
        && schema["minItems"].as_u64().is_none_or(|least| value.as_array().unwrap().len() as u64 >= least)
        && schema
            .get("items")
            .is_none_or(|inner| value.as_array().unwrap().iter().all(|it| fits(it, inner, root)))
        && each("enum").is_none_or(|mut all| all.any(|it| it == value))
        && each("oneOf").is_none_or(|all| all.filter(|it| fits(value, it, root)).count() == 1)
        && each("allOf").is_none_or(|mut all| all.all(|it| fits(value, it, root)))
        && schema.get("not").is_none_or(|it| !fits(value, it, root))
        && each("required").is_none_or(|mut all| all.all(|it| value.get(it.as_str().unwrap()).is_some()))
        && value.as_object().is_none_or(|fields| {
            fields.iter().all(|(name, inner)| match (schema["properties"].get(name), rest) {
                (Some(schema), _) => fits(inner, schema, root),
                (None, None) => true,
                (None, Some(Value::Bool(allowed))) => *allowed,
                (None, Some(schema)) => fits(inner, schema, root),
            })
        })
}

#[test]
fn the_schema_accepts_what_is_read_and_refuses_what_is_not_known() {
    let schema = crate::linkerd_tcp::config::schema();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/linkerd-tcp");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "json") {
            let document = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            assert!(fits(&document, &schema, &schema), "{}", path.display());
        }
    }
    for (table, document) in documents() {
        assert!(fits(&document, &schema, &schema), "{document:#}");
        let mut fields = Vec::new();
        visit(&document, table, "", &mut fields);
        for (path, takes, is_required) in fields {
            // The keys of a mapping are not looked at.
            let strange =
                if matches!(takes, Takes::Map(..)) { json!(7) } else { json!({ "what is this": [] }) };
            let strange = with(&document, &path, Some(strange));
            assert!(!fits(&strange, &schema, &schema), "{path}");
            if is_required {
                assert!(!fits(&with(&document, &path, None), &schema, &schema), "{path}");
            }
            if let Takes::Integer(least @ 1.., _) = takes {
                assert!(!fits(&with(&document, &path, Some(json!(least - 1))), &schema, &schema), "{path}");
            }
        }
    }
    assert!(!fits(&json!({ "proxies": [], "routers": [] }), &schema, &schema));
    assert!(!fits(&json!({}), &schema, &schema));
}
