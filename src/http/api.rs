//! The endpoints below `/api/` that talk to the model or to a session.

use super::fault::{Code, Fault};
use super::headers::Base;
use super::{Answer, App, Context, Phase, Upload, events, internal, principal, route, with};
use crate::chat::Delta;
use crate::chat::ask::{Ask, ModeChange, check_session_id};
use http::StatusCode;
use serde_json::json;

impl App {
    pub(super) async fn converse(&self, body: &mut Upload, mut context: Context<'_>) -> Answer {
        let bytes = self.read(body, &mut context).await?;
        let ask = Ask::parse(&bytes)?;
        let streamed = ask.stream;
        let mut spend = self.spend(ask.prompt_bytes(), self.chat.tokens_max(), &mut context).await?;
        let opening = self.chat.clone().open(ask, principal(&context), self.call(&context));
        if streamed {
            let opened = events::open(opening).await?;
            let headers = self.base(Base::Events, &context);
            let until = self.deadline(&context);
            let started = events::start(opened, context.access.id().clone(), until, spend);
            return Ok(with(StatusCode::OK, headers, started));
        }
        let mut turn = opening.await?;
        let id = context.access.id().text().to_owned();
        loop {
            match spend.passes(turn.next(&id).await?) {
                Delta::Text(_) => context.access.token(),
                Delta::Done(reply) => {
                    let json = serde_json::to_vec(&reply).map_err(|error| internal().inside(error))?;
                    return Ok(self.ok(Base::Api, &context, json.into()));
                }
            }
        }
    }

    pub(super) async fn initialize(&self, context: Context<'_>) -> Answer {
        self.chat.warm(self.call(&context)).await?;
        let body = json!({"success": true, "message": "The model is ready."});
        Ok(self.ok(Base::Api, &context, body.to_string().into()))
    }

    pub(super) async fn mode(&self, query: Option<&str>, context: Context<'_>) -> Answer {
        let missing = || Fault::new(Code::InvalidRequest, "session_id is required, as in ?session_id=….");
        let session_id = route::query_value(query, "session_id").ok_or_else(missing)?;
        check_session_id(&session_id)?;
        context.access.waits_for(Phase::Store);
        let mode = self.chat.mode(&session_id, principal(&context)).await?;
        let body = json!({"success": true, "session_id": session_id, "context_mode": mode});
        Ok(self.ok(Base::Api, &context, body.to_string().into()))
    }

    pub(super) async fn set_mode(&self, body: &mut Upload, mut context: Context<'_>) -> Answer {
        let change = ModeChange::parse(&self.read(body, &mut context).await?)?;
        context.access.waits_for(Phase::Store);
        self.chat.set_mode(&change, principal(&context)).await?;
        let body = json!({"success": true, "session_id": change.session_id, "context_mode": change.mode});
        Ok(self.ok(Base::Api, &context, body.to_string().into()))
    }
}
