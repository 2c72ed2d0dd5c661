//! `/v1`, OpenAI's own API: a request is looked at and passed on, and so is what comes back. Nothing is stored.

use super::events::{self, Opened};
use super::headers::Base;
use super::{Answer, App, Context, Upload, with};
use crate::chat::upstream::Relayed;
use crate::http::body::Body;
use http::StatusCode;
use http::header::HeaderName;

/// What OpenAI's libraries go by before they ask again by themselves.
pub const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

impl App {
    pub(super) async fn complete(&self, body: &mut Upload, mut context: Context<'_>) -> Answer {
        let ask = self.chat.read(self.read(body, &mut context).await?)?;
        let streamed = ask.stream;
        let reply_tokens = ask.tokens_max.unwrap_or(self.chat.tokens_max());
        let mut spend = self.spend(ask.prompt_bytes, reply_tokens, &mut context).await?;
        let relaying = self.chat.clone().relay(ask, self.call(&context));
        let opened = match streamed {
            true => events::open(relaying).await?,
            false => Opened::Now(relaying.await?),
        };
        let id = context.access.id().clone();
        let relay = match opened {
            Opened::Now(Relayed::Whole(json)) => {
                spend.whole(&json);
                return Ok(self.ok(Base::Api, &context, json));
            }
            Opened::Now(Relayed::Stream(relay)) => Body::relay(relay, id, Box::new(spend)),
            Opened::Later(opening) => Body::late_relay(opening, id, spend),
        };
        Ok(with(StatusCode::OK, self.base(Base::Events, &context), relay))
    }

    pub(super) async fn models(&self, context: Context<'_>) -> Answer {
        let models = self.chat.models(&self.call(&context)).await?;
        Ok(self.ok(Base::Api, &context, models))
    }
}

/// True when an upstream's events bring a piece of text, or of reasoning: the first ones often name only a role.
pub fn holds_text(events: &[u8]) -> bool {
    const KEY: &[u8] = b"content\":";
    let mut rest = events;
    while let Some(at) = rest.windows(KEY.len()).position(|window| window == KEY) {
        rest = &rest[at + KEY.len()..];
        if let Some([b'"', first, ..]) = rest.trim_ascii_start().get(..2)
            && *first != b'"'
        {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::holds_text;

    #[test]
    fn text_is_told_from_a_role_and_from_nothing() {
        for text in
            [r#"{"delta":{"content":"a"}}"#, r#"{"content": "a"}"#, r#"{"content":""} {"reasoning_content":"b"}"#]
        {
            assert!(holds_text(text.as_bytes()), "{text}");
        }
        for none in ["", r#"{"delta":{"role":"assistant","content":""}}"#, r#"{"content":null}"#, r#"{"content":"#] {
            assert!(!holds_text(none.as_bytes()), "{none}");
        }
    }
}
