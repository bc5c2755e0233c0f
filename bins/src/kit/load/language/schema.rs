//! The schema of a language, for editors: JSON Schema, draft 2020-12.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Field;
use super::Table;
use super::Takes;

/// The schema of files that are one of these.
pub fn schema(title: &str, files: &[&'static Table]) -> Value {
    let mut tables: Vec<&'static Table> = Vec::new();
    for table in files.iter().flat_map(|file| file.reachable()) {
        if !tables.iter().any(|it| it.name == table.name) {
            tables.push(table);
        }
    }
    let definitions: Map<String, Value> =
        tables.iter().map(|it| (it.name.to_owned(), of_table(it))).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "oneOf": files.iter().map(|it| reference(it)).collect::<Vec<_>>(),
        "$defs": definitions,
    })
}

fn reference(table: &Table) -> Value {
    json!({ "$ref": format!("#/$defs/{}", table.name.replace(' ', "%20")) })
}

fn of_table(table: &'static Table) -> Value {
    let mut properties = Map::new();
    let mut needed = Vec::new();
    for field in table.fields() {
        properties.insert(field.name.to_owned(), of_field(field, field.about.to_owned()));
        for name in field.also {
            let about = format!("The same as {}.", field.name);
            properties.insert((*name).to_owned(), of_field(field, about));
        }
        if field.is_required {
            let one: Vec<Value> = field.names().map(|name| json!({ "required": [name] })).collect();
            needed.push(json!({ "oneOf": one }));
        } else if !field.also.is_empty() {
            let names: Vec<_> = field.names().collect();
            needed.push(json!({ "not": { "required": names } }));
        }
    }
    let mut schema = json!({
        "type": "object",
        "description": table.about,
        "properties": properties,
        "additionalProperties": false,
    });
    if !needed.is_empty() {
        schema["allOf"] = needed.into();
    }
    schema
}

fn of_field(field: &Field, mut about: String) -> Value {
    if !field.default.is_empty() {
        about = format!("{about} Default: {}.", field.default);
    }
    let mut schema = of(&field.takes);
    // Beside a reference, too, since draft 2019-09.
    schema["description"] = about.into();
    schema
}

fn of(takes: &Takes) -> Value {
    match takes {
        Takes::Text(_) | Takes::File => json!({ "type": "string" }),
        Takes::Integer(least, u64::MAX) => json!({ "type": "integer", "minimum": least }),
        Takes::Integer(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Takes::Number => json!({ "type": "number", "minimum": 0 }),
        Takes::Flag => json!({ "type": "boolean" }),
        Takes::Choice(choices) => json!({ "enum": choices }),
        Takes::Version(choices) => {
            let numbers = choices.iter().filter_map(|text| text.parse::<f64>().ok()).map(Value::from);
            let texts = choices.iter().map(|text| Value::from(*text));
            json!({ "enum": texts.chain(numbers).collect::<Vec<_>>() })
        }
        Takes::Refused(_) => json!(false),
        Takes::One(table) => reference(table),
        Takes::Either(tables) => {
            json!({ "oneOf": tables.iter().map(|it| reference(it)).collect::<Vec<_>>() })
        }
        Takes::Many(least, inner) => json!({ "type": "array", "minItems": least, "items": of(inner) }),
        Takes::Map(_, inner) => json!({ "type": "object", "additionalProperties": of(inner) }),
    }
}
