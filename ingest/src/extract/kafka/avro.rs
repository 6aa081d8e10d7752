//! Avro records of a topic, by the schemas of a registry.
//!
//! A record's bytes enter: a zero, the schema's id in four bytes, the Avro body, as Confluent's serialisers write them. The
//! record as JSON leaves, so that everything behind is the same for both; decimals are their digits, times RFC 3339, bytes
//! hex. Each schema is asked for once. A registry that does not answer fails the pull; a record that its schema does
//! not fit, or whose schema nobody has registered, is told as such.

use std::collections::HashMap;
use std::time::Duration;

use arrow_avro::reader::{Decoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use arrow_json::LineDelimitedWriter;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::Error;
use crate::extract::records;
use crate::extract::source::Worker;

const TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// A schema registry, and the schemas that were got from it.
pub(super) struct Registry {
    url: String,
    http: reqwest::Client,
    worker: Worker,
    /// By id: the schema, or why there is none.
    schemas: HashMap<u32, Result<AvroSchema, String>>,
    /// Ready for the next record; one that failed is made anew.
    decoders: HashMap<u32, Decoder>,
}

/// What the registry says of an id.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registered {
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Value>,
}

impl Registry {
    /// Makes the client; the first record connects.
    ///
    /// # Errors
    /// `Internal` when it cannot be made.
    pub(super) fn new(url: &str, worker: &Worker) -> Result<Self, Error> {
        let http = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build();
        let http = http.map_err(|error| Error::internal("make an HTTP client", error))?;
        let url = url.trim_end_matches('/').to_string();
        Ok(Self { url, http, worker: worker.clone(), schemas: HashMap::new(), decoders: HashMap::new() })
    }

    /// A record as JSON, or what is wrong with it.
    ///
    /// # Errors
    /// `Source` when the registry does not answer.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Result<Map<String, Value>, String>, Error> {
        let id = match bytes {
            [0, id @ ..] if id.len() >= 4 => u32::from_be_bytes([id[0], id[1], id[2], id[3]]),
            _ => return Ok(Err("no Avro record of a registry: it does not begin with 0 and a schema's id".into())),
        };
        if !self.schemas.contains_key(&id) {
            let schema = self.ask(id)?;
            self.schemas.insert(id, schema);
        }
        let schema = match &self.schemas[&id] {
            Ok(schema) => schema,
            Err(why) => return Ok(Err(format!("schema {id}: {why}"))),
        };
        let mut decoder = match self.decoders.remove(&id).map_or_else(|| decoder(id, schema), Ok) {
            Ok(decoder) => decoder,
            Err(why) => return Ok(Err(format!("schema {id} cannot be read: {why}"))),
        };
        let record = decode(&mut decoder, bytes);
        if record.is_ok() {
            self.decoders.insert(id, decoder);
        }
        Ok(record.map_err(|why| format!("not as schema {id} says: {why}")))
    }

    /// A schema, or why it cannot be had.
    fn ask(&self, id: u32) -> Result<Result<AvroSchema, String>, Error> {
        let failed = |what: String| Error::source(format!("the schema registry {}: {what}", self.url));
        let answer = self.worker.block_on(async {
            let mut answer = self.http.get(format!("{}/schemas/ids/{id}", self.url)).send().await?;
            let status = answer.status();
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await? {
                body.extend_from_slice(&chunk);
                if body.len() > ANSWER_BYTES_MAX {
                    break;
                }
            }
            Ok::<_, reqwest::Error>((status, body))
        })?;
        let (status, body) = answer.map_err(|error| failed(error.without_url().to_string()))?;
        if status == reqwest::StatusCode::NOT_FOUND {
            return Ok(Err("the registry does not know it".into()));
        }
        if !status.is_success() {
            return Err(failed(format!("status {}", status.as_u16())));
        }
        let told: Registered = serde_json::from_slice(&body)
            .map_err(|error| failed(format!("no schema in the answer, at column {}", error.column())))?;
        Ok(match told {
            Registered { schema_type: Some(kind), .. } if kind != "AVRO" => Err(format!("it is {kind}, not Avro")),
            Registered { references, .. } if !references.is_empty() => Err("it refers to other schemas".into()),
            Registered { schema, .. } => Ok(AvroSchema::new(schema)),
        })
    }
}

fn decoder(id: u32, schema: &AvroSchema) -> Result<Decoder, String> {
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(id), schema.clone()).map_err(|error| error.to_string())?;
    let builder = ReaderBuilder::new().with_batch_size(1).with_writer_schema_store(store);
    builder.with_active_fingerprint(Fingerprint::Id(id)).build_decoder().map_err(|error| error.to_string())
}

/// One record. What it holds is in no message: the decoder's own words name types and places.
fn decode(decoder: &mut Decoder, bytes: &[u8]) -> Result<Map<String, Value>, String> {
    let read = decoder.decode(bytes).map_err(|error| error.to_string())?;
    let batch = decoder.flush().map_err(|error| error.to_string())?;
    let batch = batch.filter(|_| read == bytes.len()).ok_or("it is longer or shorter")?;
    let mut json = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut json);
    writer.write(&batch).and_then(|()| writer.finish()).map_err(|error| error.to_string())?;
    match records::parse(&json) {
        Ok(Value::Object(record)) => Ok(record),
        _ => Err("it is no record".into()),
    }
}
