//! `/v1`, OpenAI's own API: a request is looked at and passed on, and so is what comes back. Nothing is stored.

use super::headers::Base;
use super::{Answer, App, Context, Incoming, with};
use crate::chat::upstream::Relayed;
use crate::http::body::Body;
use http::StatusCode;
use http::header::HeaderName;

/// What OpenAI's libraries go by before they ask again by themselves.
pub const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

impl App {
    pub(super) async fn complete(&self, body: Incoming, mut context: Context<'_>) -> Answer {
        let ask = self.chat.read(self.read(body, &mut context).await?)?;
        let reply_tokens = ask.tokens_max.unwrap_or(self.chat.tokens_max());
        let mut spend = self.spend(ask.prompt_bytes, reply_tokens, &mut context).await?;
        match self.chat.relay(&ask, &self.call(&context)).await? {
            Relayed::Whole(json) => {
                spend.whole(&json);
                Ok(self.ok(Base::Api, &context, json))
            }
            Relayed::Stream(relay) => {
                let headers = self.headers.base(Base::Events, context.origin);
                Ok(with(StatusCode::OK, headers, Body::relay(relay, context.access.id().clone(), Box::new(spend))))
            }
        }
    }

    pub(super) async fn models(&self, context: Context<'_>) -> Answer {
        let models = self.chat.models(&self.call(&context)).await?;
        Ok(self.ok(Base::Api, &context, models))
    }
}
