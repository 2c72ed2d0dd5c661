//! The chat: from a message to a reply.
//!
//! ```text
//! Ask ─▶ store: begin the turn ─▶ upstream: open ─▶ Turn ─▶ delta, delta, … ─▶ Reply, stored
//!                                                     └─ dropped or failed: stored as incomplete
//! ```
//! The user's turn is stored before anything is generated. Whoever holds a [`Turn`] and drops it has cancelled it: the
//! upstream's connection closes and the store learns what there was of the reply.

mod admission;
pub mod ask;
pub mod error;
mod health;
pub mod json;
pub mod openai;
pub mod session;
pub mod store;
mod turn;
pub mod upstream;
pub mod wire;

pub use health::{Health, Watch};
pub use turn::{Delta, Performance, Reply, Turn};

use ask::{Ask, Invalid, ModeChange};
use bytes::Bytes;
use error::Error;
use session::{Mode, Principal, SessionKey, SessionRef};
use std::sync::Arc;
use store::Store;
use tokio::sync::watch;
use upstream::{Call, Limits, Relayed, Target, Upstream};
use wire::Message;

/// What a worker's chat is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The upstreams, in order of preference; the engine's socket when there is one.
    pub targets: Vec<Target>,
    /// True when the only target is the engine that this master keeps alive: the board knows its state.
    pub engine: bool,
    /// Time limits of a call.
    pub limits: Limits,
    /// The model to ask for.
    pub model: Option<String>,
    /// Stands before every conversation.
    pub system_prompt: Option<String>,
    /// Most tokens of a reply.
    pub tokens_max: u32,
    /// 0 to 2.
    pub temperature: f32,
    /// Chats that a worker has under way at most.
    pub chats_max: u32,
    /// Tokens of a conversation that are sent at most, by [`session::tokens_of`]. Our own engine counts exactly and
    /// leaves out what does not fit: it gets more than that can be.
    pub context_tokens_max: usize,
}

/// The chat of one runtime thread; the store behind it is the worker's.
pub struct Chat {
    plan: Plan,
    store: Store,
    upstream: Upstream,
    health: Arc<Watch>,
    ending: watch::Receiver<bool>,
}

impl Chat {
    /// Made inside the runtime that uses it. `ending` turns true when a drain's limit has passed.
    pub fn new(plan: Plan, store: Store, health: Arc<Watch>, ending: watch::Receiver<bool>) -> Chat {
        let upstream = Upstream::new(plan.targets.clone(), plan.limits, health.rests.clone());
        Chat { plan, store, upstream, health, ending }
    }

    /// Most tokens of a reply.
    pub fn tokens_max(&self) -> u32 {
        self.plan.tokens_max
    }

    /// Begins a turn: stores the message, then asks the model.
    ///
    /// # Errors
    /// The store's, or the upstream's before its first byte.
    pub async fn open(self: Arc<Self>, ask: Ask, principal: Principal, call: Call) -> Result<Turn, Error> {
        self.health.check_engine()?;
        let place = self.health.admission.enter(call.client).map_err(Error::Overloaded)?;
        let session = match &ask.session_id {
            Some(id) => SessionRef::Given(id.clone()),
            None => SessionRef::Issue,
        };
        let key = SessionKey::new(session, principal);
        let begun = self.store.begin(key, ask.message.clone(), ask.user_id.clone(), ask.mode).await?;
        let turn = turn::Opening::new(self.store.clone(), begun, &ask);
        let mut ending = self.ending.clone();
        tokio::select! {
            biased;
            opened = self.ask_model(&ask, &turn, &call) => {
                self.health.saw(opened.as_ref().err());
                opened.map(|stream| turn.streaming(stream, self.ending.clone(), place))
            }
            _ = ending.wait_for(|ending| *ending) => Err(Error::Stopping),
        }
    }

    /// The oldest turns stay away: our own engine counts exactly, elsewhere tokens are a guess. When a model finds a
    /// conversation with old turns too long all the same, half of them stay away, until only the message is left.
    async fn ask_model(&self, ask: &Ask, turn: &turn::Opening, call: &Call) -> Result<upstream::Stream, Error> {
        let mut tokens_max = self.plan.context_tokens_max;
        loop {
            let request = self.request(ask, turn.mode(), turn.stored(), tokens_max);
            let turns = request.messages.len();
            match self.upstream.open(&request, call).await {
                Err(Error::ContextLength(_)) if turns > 2 && tokens_max > 0 => tokens_max /= 2,
                opened => return opened,
            }
        }
    }

    /// Looks at a body of `/v1` under this chat's rules.
    ///
    /// # Errors
    /// See [`Invalid`].
    pub fn read(&self, body: Bytes) -> Result<openai::Ask, Invalid> {
        openai::Ask::read(
            body,
            openai::Rules {
                own_engine: self.plan.targets.iter().any(|target| target.own),
                model: self.plan.model.as_deref(),
            },
        )
    }

    /// Passes a client's own request on to the model; nothing is stored.
    ///
    /// # Errors
    /// The upstream's before its first event.
    pub async fn relay(self: Arc<Self>, ask: openai::Ask, call: Call) -> Result<Relayed, Error> {
        self.health.check_engine()?;
        let place = self.health.admission.enter(call.client).map_err(Error::Overloaded)?;
        let mut ending = self.ending.clone();
        tokio::select! {
            biased;
            relayed = self.upstream.relay(&ask.body, ask.stream, &call, &self.ending) => {
                self.health.saw(relayed.as_ref().err());
                relayed.map(|relayed| relayed.holding(place))
            }
            _ = ending.wait_for(|ending| *ending) => Err(Error::Stopping),
        }
    }

    /// The models that a client may ask for, as JSON: the configured one, or those that the upstream tells.
    ///
    /// # Errors
    /// The upstream's.
    pub async fn models(&self, call: &Call) -> Result<Bytes, Error> {
        if let Some(model) = &self.plan.model {
            let list = serde_json::to_vec(&wire::Models::one(model, 0));
            return list.map(Bytes::from).map_err(|error| Error::Upstream(error.to_string()));
        }
        self.health.check_engine()?;
        self.upstream.models(call).await
    }

    /// A session's context mode.
    ///
    /// # Errors
    /// The store's.
    pub async fn mode(&self, session_id: &str, principal: Principal) -> Result<Mode, Error> {
        let key = SessionKey::new(SessionRef::Given(session_id.to_owned()), principal);
        Ok(self.store.mode(key).await?)
    }

    /// Sets a session's context mode.
    ///
    /// # Errors
    /// The store's.
    pub async fn set_mode(&self, change: &ModeChange, principal: Principal) -> Result<(), Error> {
        let key = SessionKey::new(SessionRef::Given(change.session_id.clone()), principal);
        Ok(self.store.set_mode(key, change.mode).await?)
    }

    /// Makes the model answer once, so that the next one does not wait.
    ///
    /// # Errors
    /// The upstream's.
    pub async fn warm(&self, call: Call) -> Result<(), Error> {
        self.health.check_engine()?;
        let mut request = self.base_request(vec![Message::new(wire::Role::User, "Hello")]);
        request.max_tokens = Some(1);
        let opened = self.upstream.open(&request, &call).await;
        self.health.saw(opened.as_ref().err());
        let mut stream = opened?;
        while stream.next().await?.is_some() {}
        Ok(())
    }

    /// Whether the model answers, as far as is known; never waits.
    pub fn health(&self) -> Health {
        self.health.now()
    }

    /// Looks whether an upstream can be reached, when the last look is old. The engine's state needs no look.
    pub async fn look(&self) {
        if self.health.wants_look() {
            self.health.looked(self.upstream.reachable().await);
        }
    }

    /// Closes idle connections to upstreams; to be called once a second.
    pub fn sweep(&self) {
        self.upstream.sweep();
    }

    /// Deletes sessions that were idle for too long, a bounded number at once; true when there may be more.
    ///
    /// # Errors
    /// The store's.
    pub async fn purge(&self) -> Result<bool, Error> {
        Ok(self.store.purge().await? as i64 >= store::PURGE_MAX)
    }

    /// True when a session could be stored now.
    pub async fn store_works(&self) -> bool {
        self.store.health().await.is_ok()
    }

    fn request(&self, ask: &Ask, mode: Mode, stored: &[store::StoredTurn], tokens_max: usize) -> wire::Request {
        let messages = session::context(session::Context {
            mode,
            stored,
            history: ask.history.as_deref(),
            system_prompt: self.plan.system_prompt.as_deref(),
            message: &ask.message,
            tokens_max,
        });
        wire::Request { chatcorn_trim: self.plan.engine, ..self.base_request(messages) }
    }

    fn base_request(&self, messages: Vec<Message>) -> wire::Request {
        wire::Request {
            model: self.plan.model.clone(),
            messages,
            stream: true,
            stream_options: Some(wire::StreamOptions { include_usage: true }),
            max_tokens: Some(self.plan.tokens_max),
            temperature: Some(self.plan.temperature),
            ..wire::Request::default()
        }
    }
}
