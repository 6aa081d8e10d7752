//! Decoders that know what records were written with.
//!
//! A contract enters; a decoder leaves that reads every schema the lake has kept of its topic, and asks the lake for one that
//! a producer has registered since. A contract that cannot read what was written before is refused here.

use lake::Lake;
use schemas::evolution::check_writers;
use schemas::{Contract, Decoder};
use tokio::runtime::Handle;

use crate::error::Error;

/// A decoder of the records of `contract`. It blocks for each schema that is new, so it is not for async threads.
///
/// # Errors
/// `Settings` when the contract cannot read what was written before, with the field and the way forward; `Lake` when the
/// lake does not answer.
pub async fn decoder(lake: &Lake, contract: &Contract) -> Result<Decoder, Error> {
    let known = lake.writer_schemas(contract).await?;
    check_writers(contract, &known)?;
    let (handle, lake, of_lookup) = (Handle::current(), lake.clone(), contract.clone());
    let lookup =
        move |fingerprint| handle.block_on(lake.writer_schema(&of_lookup, fingerprint)).map_err(schemas::Error::store);
    let mut decoder = Decoder::new(contract)?.with_lookup(Box::new(lookup));
    for writer in &known {
        decoder.learn(writer)?;
    }
    Ok(decoder)
}
