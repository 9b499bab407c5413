//! What a process holds, and how it tells whoever connects.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::ALLOCATOR;

/// Samples of which the smallest counts: what a request under way holds is not growth.
const SAMPLES: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// What a process holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// Allocated and not freed.
    pub(crate) live: u64,
    /// Resident, whoever has it.
    pub(crate) resident: u64,
}

impl Held {
    /// What this process holds now.
    fn now() -> anyhow::Result<Self> {
        let stats = ALLOCATOR.stats();
        let live = stats
            .bytes_allocated
            .saturating_sub(stats.bytes_deallocated);
        let status = fs::read_to_string("/proc/self/status")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|line| line.split_whitespace().next());
        let kib: u64 = resident.context("no VmRSS")?.parse()?;
        Ok(Self {
            live: u64::try_from(live)?,
            resident: kib * 1024,
        })
    }

    /// What the process behind `address` holds when it has nothing to do.
    pub(crate) async fn at_rest(address: SocketAddr) -> anyhow::Result<Self> {
        let mut least = ask(address).await?;
        for _ in 1..SAMPLES {
            tokio::time::sleep(PAUSE).await;
            let sample = ask(address).await?;
            least.live = least.live.min(sample.live);
            least.resident = least.resident.min(sample.resident);
        }
        Ok(least)
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kb = |bytes: u64| bytes.div_ceil(1_000);
        let (live, resident) = (kb(self.live), kb(self.resident));
        write!(f, "{live:>8} kB live, {resident:>8} kB resident")
    }
}

async fn ask(address: SocketAddr) -> anyhow::Result<Held> {
    let mut answer = String::new();
    let mut stream = TcpStream::connect(address).await?;
    stream.read_to_string(&mut answer).await?;
    let (live, resident) = answer.split_once(' ').context("no answer")?;
    Ok(Held {
        live: live.parse()?,
        resident: resident.parse()?,
    })
}

/// Tells everyone who connects to `port` what this process holds, until the process ends.
pub(crate) async fn tell(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        let Held { live, resident } = Held::now()?;
        stream
            .write_all(format!("{live} {resident}").as_bytes())
            .await?;
    }
}
