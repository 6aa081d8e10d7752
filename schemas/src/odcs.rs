//! The file format: the part of the Open Data Contract Standard 3.1 that Quad reads.
//!
//! YAML text enters, a [`Contract`] leaves. Standard keys that Quad has no use for are allowed; an unknown
//! custom property is an error, since a typing mistake there would silently drop a rule.
//! Format: <https://bitol-io.github.io/open-data-contract-standard/v3.1.0/>

use std::path::Path;

use serde::Deserialize;

use crate::codes::CodeSets;
use crate::contract::{Class, Contract, Field, FieldType, Kind, RowRule};
use crate::error::{Error, ErrorKind};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    api_version: String,
    kind: String,
    version: String,
    domain: String,
    #[serde(default)]
    description: Prose,
    #[serde(default)]
    team: Option<Team>,
    #[serde(default)]
    sla_properties: Vec<Sla>,
    schema: Vec<Object>,
}

#[derive(Deserialize, Default)]
struct Prose {
    #[serde(default)]
    purpose: String,
    #[serde(default)]
    limitations: String,
}

#[derive(Deserialize)]
struct Team {
    name: String,
}

#[derive(Deserialize)]
struct Sla {
    property: String,
    value: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    name: String,
    #[serde(default)]
    business_name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    quality: Vec<Quality>,
    #[serde(default)]
    custom_properties: Vec<Custom>,
    properties: Vec<Property>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Property {
    name: String,
    #[serde(default)]
    business_name: String,
    #[serde(default)]
    description: String,
    physical_type: String,
    #[serde(default)]
    required: bool,
    #[serde(default)]
    primary_key: bool,
    #[serde(default)]
    primary_key_position: Option<usize>,
    classification: String,
    #[serde(default)]
    logical_type_options: Options,
    #[serde(default)]
    quality: Vec<Quality>,
    #[serde(default)]
    custom_properties: Vec<Custom>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Options {
    min_length: Option<usize>,
    max_length: Option<usize>,
    pattern: Option<String>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    #[serde(rename = "format")]
    _format: Option<String>,
    #[serde(rename = "timezone")]
    _timezone: Option<bool>,
    #[serde(rename = "defaultTimezone")]
    _default_timezone: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Quality {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: String,
    #[serde(default, rename = "type")]
    quality_type: Option<String>,
    #[serde(default)]
    metric: Option<String>,
    #[serde(default)]
    implementation: Option<String>,
    #[serde(default)]
    arguments: Option<Arguments>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arguments {
    #[serde(default)]
    valid_values: Vec<String>,
}

#[derive(Deserialize)]
struct Custom {
    property: String,
    value: serde_json::Value,
}

pub(crate) fn parse(text: &str, file: &Path, codes: &CodeSets) -> Result<Contract, Error> {
    let document: Document = serde_saphyr::from_str(text).map_err(|error| Error {
        kind: ErrorKind::Contract,
        message: format!("{}: not a data contract: {error}", file.display()),
        source: None,
    })?;
    let wrong = |message: String| Error::contract(file, message);
    if document.kind != "DataContract" || !document.api_version.starts_with("v3.") {
        return Err(wrong("expected `kind: DataContract` and `apiVersion: v3.1.0`".into()));
    }
    let [object] = <[Object; 1]>::try_from(document.schema)
        .map_err(|objects| wrong(format!("one table a contract, found {}", objects.len())))?;
    let latency = document.sla_properties.iter().find(|sla| sla.property == "latency");
    let mut contract = Contract {
        topic_prefix: "quad".to_string(),
        domain: document.domain,
        table: object.name,
        title: object.business_name,
        purpose: document.description.purpose,
        limitations: document.description.limitations,
        description: object.description,
        version: document.version,
        owner: document.team.map(|team| team.name).unwrap_or_default(),
        kind: Kind::Entity,
        key: key(&object.properties),
        event_time: String::new(),
        ordering: Vec::new(),
        fields: Vec::new(),
        row_rules: Vec::new(),
        freshness_s: latency.and_then(|sla| sla.value.as_u64()),
        retention_days: None,
    };
    for custom in &object.custom_properties {
        table_property(&mut contract, custom).map_err(wrong)?;
    }
    for quality in &object.quality {
        contract.row_rules.push(row_rule(quality).map_err(wrong)?);
    }
    for property in object.properties {
        contract.fields.push(field(property, codes).map_err(wrong)?);
    }
    Ok(contract)
}

fn key(properties: &[Property]) -> Vec<String> {
    let mut key: Vec<_> = properties.iter().filter(|property| property.primary_key).collect();
    key.sort_by_key(|property| property.primary_key_position);
    key.into_iter().map(|property| property.name.clone()).collect()
}

fn table_property(contract: &mut Contract, custom: &Custom) -> Result<(), String> {
    let text = custom.value.as_str().unwrap_or_default();
    match custom.property.as_str() {
        "kind" => {
            contract.kind = match text {
                "entity" => Kind::Entity,
                "event" => Kind::Event,
                "reference" => Kind::Reference,
                "derived" => Kind::Derived,
                other => return Err(format!("kind `{other}` is none of entity, event, reference, derived")),
            }
        }
        "eventTime" => contract.event_time = text.to_string(),
        "ordering" => contract.ordering = text.split(',').map(|name| name.trim().to_string()).collect(),
        "retentionDays" => {
            let days = custom.value.as_u64().and_then(|days| u32::try_from(days).ok());
            contract.retention_days = Some(days.ok_or("retentionDays is not a number of days")?);
        }
        other => return Err(format!("unknown custom property `{other}` of the table")),
    }
    Ok(())
}

fn row_rule(quality: &Quality) -> Result<RowRule, String> {
    let name = quality.name.clone().ok_or("a row rule needs a `name`")?;
    match (quality.quality_type.as_deref(), &quality.implementation) {
        (Some("custom"), Some(predicate)) => {
            Ok(RowRule { name, predicate: predicate.clone(), description: quality.description.clone() })
        }
        _ => Err(format!("row rule `{name}` needs `type: custom` and an `implementation`")),
    }
}

fn field(property: Property, codes: &CodeSets) -> Result<Field, String> {
    let name = property.name;
    let options = property.logical_type_options;
    let mut field = Field {
        title: property.business_name,
        description: property.description,
        field_type: field_type(&property.physical_type)
            .ok_or_else(|| format!("field `{name}`: unknown physicalType `{}`", property.physical_type))?,
        required: property.required,
        class: class(&property.classification)
            .ok_or_else(|| format!("field `{name}`: unknown classification `{}`", property.classification))?,
        code: None,
        minimum: options.minimum,
        maximum: options.maximum,
        length_min: options.min_length,
        length_max: options.max_length,
        pattern: options.pattern,
        values: None,
        aliases: Vec::new(),
        name,
    };
    for custom in property.custom_properties {
        let text = custom.value.as_str().unwrap_or_default();
        match custom.property.as_str() {
            "fieldCode" => field.code = Some(text.to_string()),
            "aliases" => {
                let names = serde_json::from_value(custom.value);
                field.aliases = names.map_err(|_| format!("field `{}`: aliases is not a list of names", field.name))?;
            }
            "codeSet" => {
                let set = codes.get(text);
                let set = set.ok_or_else(|| format!("field `{}`: no code set `codes/{text}.csv`", field.name))?;
                field.values = Some((text.to_string(), set.keys().cloned().collect()));
            }
            other => return Err(format!("field `{}`: unknown custom property `{other}`", field.name)),
        }
    }
    for quality in property.quality {
        match (quality.metric.as_deref(), quality.arguments) {
            (Some("invalidValues"), Some(arguments)) if !arguments.valid_values.is_empty() => {
                field.values = Some(("values".to_string(), arguments.valid_values));
            }
            _ => return Err(format!("field `{}`: only `metric: invalidValues` with `validValues`", field.name)),
        }
    }
    Ok(field)
}

fn class(classification: &str) -> Option<Class> {
    Some(match classification {
        "public" => Class::Public,
        "internal" => Class::Internal,
        "sensitive" => Class::Sensitive,
        "highly_sensitive" => Class::HighlySensitive,
        _ => return None,
    })
}

fn field_type(physical: &str) -> Option<FieldType> {
    Some(match physical {
        "string" => FieldType::String,
        "int" => FieldType::Int,
        "bigint" => FieldType::BigInt,
        "bool" => FieldType::Bool,
        "date" => FieldType::Date,
        "timestamp" => FieldType::Timestamp,
        "double" => FieldType::Double,
        decimal => {
            let (precision, scale) = decimal.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
            let decimal =
                FieldType::Decimal { precision: precision.trim().parse().ok()?, scale: scale.trim().parse().ok()? };
            matches!(decimal, FieldType::Decimal { precision: 1..=38, scale: 0..=37 }).then_some(decimal)?
        }
    })
}
