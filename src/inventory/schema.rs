//! The JSON schema of the inventory (draft 7, which editors read), put together from what the sections say of
//! themselves.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

/// A JSON schema.
pub(crate) type Schema = Value;

/// The sections met so far: a section used twice (for the cluster and for a node) is described once.
#[derive(Debug, Default)]
pub(crate) struct Definitions(Map<String, Value>);

/// One key of a section.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) docs: &'static str,
    pub(crate) required: bool,
    pub(crate) schema: Schema,
    pub(crate) default: Value,
}

impl Definitions {
    /// Describes a section and returns the reference to it.
    pub(crate) fn section(
        &mut self,
        name: &'static str,
        docs: &'static str,
        keys: impl FnOnce(&mut Self) -> Vec<Key>,
    ) -> Schema {
        if !self.0.contains_key(name) {
            self.0.insert(name.to_owned(), Value::Null);
            let keys = keys(self);
            let required: Vec<&str> = keys
                .iter()
                .filter(|key| key.required)
                .map(|key| key.name)
                .collect();
            let properties: Map<String, Value> = keys
                .into_iter()
                .map(|key| (key.name.to_owned(), described(key)))
                .collect();
            let mut schema = json!({
                "type": "object",
                "description": paragraph(docs),
                "additionalProperties": false,
                "properties": properties,
            });
            if let (false, Some(object)) = (required.is_empty(), schema.as_object_mut()) {
                object.insert("required".to_owned(), json!(required));
            }
            self.0.insert(name.to_owned(), schema);
        }
        json!({ "$ref": format!("#/definitions/{name}") })
    }

    /// The whole document: the root section, with all the others beside it.
    pub(crate) fn document(mut self, title: &str, root: &Schema) -> Schema {
        let name = root["$ref"]
            .as_str()
            .and_then(|path| path.rsplit('/').next())
            .unwrap_or_default();
        let mut document = json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": title,
        });
        if let (Some(document), Some(Value::Object(root))) =
            (document.as_object_mut(), self.0.remove(name))
        {
            document.extend(root);
            document.insert("definitions".to_owned(), Value::Object(self.0));
        }
        document
    }
}

/// The section that has a key of this name, as a path of tables.
pub(crate) fn home(key: &str) -> Option<String> {
    fn search(schema: &Value, section: &Value, path: &str, key: &str) -> Option<String> {
        let properties = section["properties"].as_object()?;
        if !path.is_empty() && properties.contains_key(key) {
            return Some(path.to_owned());
        }
        properties.iter().find_map(|(name, property)| {
            let section = property["$ref"].as_str()?.rsplit('/').next()?;
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            search(schema, &schema["definitions"][section], &path, key)
        })
    }
    static SCHEMA: LazyLock<Schema> = LazyLock::new(super::schema);
    search(&SCHEMA, &SCHEMA, "", key)
}

fn described(key: Key) -> Value {
    let mut schema = key.schema;
    // Beside a `$ref` draft 7 ignores everything; the section has its own description.
    if let Some(object) = schema
        .as_object_mut()
        .filter(|object| !object.contains_key("$ref"))
    {
        object.insert("description".to_owned(), json!(paragraph(key.docs)));
        if !key.default.is_null() {
            object.insert("default".to_owned(), key.default);
        }
    }
    schema
}

/// Doc comment lines as running text.
fn paragraph(docs: &str) -> String {
    docs.lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ")
        .trim()
        .to_owned()
}
