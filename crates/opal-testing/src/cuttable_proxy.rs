//! The network that fails on purpose: a TCP proxy which a test cuts, stalls and restores.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Stands between two processes on loopback. It ends, and its connections with it, when dropped.
#[derive(Debug)]
pub struct CuttableProxy {
    address: SocketAddr,
    line: watch::Sender<Line>,
    _tasks: JoinSet<()>,
}

/// The state of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Bytes pass.
    Open,
    /// Connections stay, and are accepted, but no byte passes.
    Stalled,
    /// Connections are closed, and new ones are closed at once.
    Cut,
}

impl CuttableProxy {
    /// Starts a proxy to `target` on a port of its own.
    pub async fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (line, state) = watch::channel(Line::Open);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, state));
        Ok(Self {
            address,
            line,
            _tasks: tasks,
        })
    }

    /// Where to connect instead of the target.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection and refuses new ones.
    pub fn cut(&self) {
        self.line.send_replace(Line::Cut);
    }

    /// Keeps every connection open and lets nothing pass: the worst of failures, because nobody is
    /// told.
    pub fn stall(&self) {
        self.line.send_replace(Line::Stalled);
    }

    /// Lets bytes pass again.
    pub fn restore(&self) {
        self.line.send_replace(Line::Open);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, line: watch::Receiver<Line>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if *line.borrow() != Line::Cut {
            connections.spawn(connect(near, target, line.clone()));
        }
    }
}

async fn connect(near: TcpStream, target: SocketAddr, mut line: watch::Receiver<Line>) {
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let there = pump(near_read, far_write, line.clone());
    let back = pump(far_read, near_write, line.clone());
    tokio::select! {
        _ = async { tokio::join!(there, back) } => {}
        _ = line.wait_for(|line| *line == Line::Cut) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut line: watch::Receiver<Line>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if line.wait_for(|line| *line == Line::Open).await.is_err() {
            return;
        }
        let Some(bytes) = buffer.get(..read) else {
            return;
        };
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
    let _peer_gone = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fake_data_source::{FakeDataSource, Reply};
    use crate::http;

    async fn proxied() -> (FakeDataSource, CuttableProxy, String) {
        let source = FakeDataSource::start().await.unwrap();
        source.set("/", Reply::json(&serde_json::json!(1)));
        let target = source
            .url("")
            .trim_start_matches("http://")
            .parse()
            .unwrap();
        let proxy = CuttableProxy::start(target).await.unwrap();
        let url = format!("http://{}/", proxy.address());
        (source, proxy, url)
    }

    #[tokio::test]
    async fn a_cut_line_refuses_and_a_restored_one_serves() {
        let (_source, proxy, url) = proxied().await;
        http::get(&url).send().await.unwrap().expect(200).unwrap();
        proxy.cut();
        http::get(&url).send().await.unwrap_err();
        proxy.restore();
        http::get(&url).send().await.unwrap().expect(200).unwrap();
    }

    #[tokio::test]
    async fn a_stalled_line_says_nothing_until_it_is_restored() {
        let (source, proxy, url) = proxied().await;
        proxy.stall();
        let stalled = http::get(&url)
            .limit(Duration::from_millis(100))
            .send()
            .await;
        stalled.unwrap_err();
        assert!(source.requests("/").is_empty());
        proxy.restore();
        http::get(&url).send().await.unwrap().expect(200).unwrap();
    }
}
