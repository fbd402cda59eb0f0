//! One object of a store, read in ranges.

use std::fmt;

use futures_util::TryStreamExt;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;

use super::Found;
use super::address::Address;
use super::client::Client;

/// Asked for at a time, bytes: what a failed request costs, and what is held.
const RANGE: u64 = 8 << 20;

/// An object as it was when it was looked at.
#[derive(Clone, Debug)]
pub struct Object {
    /// Where it is.
    pub address: Address,
    /// Bytes.
    pub size: u64,
    /// What the store calls this version of it.
    pub version: Option<String>,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address.name)
    }
}

/// What is at an address: an object, else the objects below it.
///
/// # Errors
/// As [`super::find`].
pub fn find(address: &Address) -> Result<Found, String> {
    let client = Client::of(address)?;
    runtime()?.block_on(async {
        let told = |e| client.told(&address.name, &e);
        match client.store.head(&address.key).await {
            Ok(meta) => Ok(Found::There(Object { address: address.clone(), size: meta.size, version: meta.e_tag })),
            Err(e @ object_store::Error::NotFound { .. }) => {
                // Where objects may be read but not listed, what was asked for is what is missing.
                let below = below(&client, address).await.unwrap_or_default();
                if below.is_empty() { Err(told(e)) } else { Ok(Found::Below(below)) }
            }
            Err(e) => Err(told(e)),
        }
    })
}

async fn below(client: &Client, address: &Address) -> object_store::Result<Vec<Object>> {
    let mut found: Vec<Object> = client
        .store
        .list(Some(&address.key))
        .map_ok(|meta| Object { address: address.at(meta.location), size: meta.size, version: meta.e_tag })
        .try_collect()
        .await?;
    // Names that begin so are unfinished, by the custom of those who write such folders.
    let own = address.key.parts().count();
    found.retain(|object| !object.address.key.parts().skip(own).any(|part| part.as_ref().starts_with(['.', '_'])));
    found.sort_by(|a, b| a.address.key.cmp(&b.address.key));
    Ok(found)
}

impl Object {
    /// Gives all of it away in blocks; `give` says whether it wants more.
    ///
    /// # Errors
    /// The store, or it is another object by now.
    pub fn read(&self, give: &mut dyn FnMut(Vec<u8>) -> bool) -> Result<(), String> {
        let client = Client::of(&self.address)?;
        let runtime = runtime()?;
        let mut at = 0;
        while at < self.size {
            let end = self.size.min(at + RANGE);
            let options = GetOptions {
                range: Some(GetRange::Bounded(at..end)),
                if_match: self.version.clone(),
                ..GetOptions::default()
            };
            let got =
                runtime.block_on(async { client.store.get_opts(&self.address.key, options).await?.bytes().await });
            let block = got.map_err(|e| client.told(&self.address.name, &e))?;
            if block.len() as u64 != end - at {
                return Err(format!("{self}: the store gave {} bytes of {}", block.len(), end - at));
            }
            at = end;
            if !give(block.into()) {
                break;
            }
        }
        Ok(())
    }
}

fn runtime() -> Result<Runtime, String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| format!("no runtime: {e}"))
}
