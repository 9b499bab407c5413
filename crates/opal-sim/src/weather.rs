//! How much goes wrong in a run.

use rand::Rng;

/// Probabilities, drawn once for each run so that runs differ in what they are about.
#[derive(Debug, Clone)]
pub struct Weather {
    /// Whether anything goes wrong at all.
    pub is_faulty: bool,
    /// That something takes much longer than usual.
    pub slow: f64,
    /// That a request or its answer is lost, or answered with an error.
    pub http: f64,
    /// That a fetch of a document fails.
    pub fetch: f64,
    /// That the policy store does not take a change.
    pub store: f64,
    /// That a frame comes twice.
    pub twice: f64,
    /// That git cannot be reached.
    pub git: f64,
    /// That an attempt to connect fails.
    pub connect: f64,
    /// How often each fault of the schedule happens, beside the others.
    pub schedule: Faults,
}

/// Weights of what the schedule does beside publishing.
#[derive(Debug, Clone)]
pub struct Faults {
    /// A connection breaks.
    pub cut: u32,
    /// A client can reach nobody for a while.
    pub partition: u32,
    /// The server dies and comes back.
    pub server_crash: u32,
    /// The same, and its disk is lost.
    pub disk_loss: u32,
    /// A client dies and comes back.
    pub client_crash: u32,
    /// A client does nothing for a while.
    pub stall: u32,
    /// A policy engine loses what it holds.
    pub engine_loss: u32,
    /// A token expires.
    pub expiry: u32,
}

impl Weather {
    /// A mood for one run: of each kind of fault none, a few or many.
    pub fn draw(rng: &mut impl Rng) -> Self {
        let mut rate = |most: f64| match rng.random_range(0..3) {
            0 => 0.0,
            1 => most / 5.0,
            _ => most,
        };
        let (slow, http, fetch) = (rate(0.2), rate(0.3), rate(0.5));
        let (store, twice) = (rate(0.3), rate(0.2));
        let (git, connect) = (rate(0.4), rate(0.5));
        let mut weight = |most: u32| match rng.random_range(0..3) {
            0 => 0,
            1 => 1,
            _ => rng.random_range(1..=most),
        };
        Self {
            is_faulty: true,
            slow,
            http,
            fetch,
            store,
            twice,
            git,
            connect,
            schedule: Faults {
                cut: weight(8),
                partition: weight(4),
                server_crash: weight(4),
                disk_loss: weight(2),
                client_crash: weight(4),
                stall: weight(4),
                engine_loss: weight(3),
                expiry: weight(3),
            },
        }
    }
}
