//! Tokens that a program knows (upstream: the webhook token authenticator). Its answers are kept for a while, refusals
//! too; a program that does not answer is asked again the next time.

use std::sync::Arc;
use std::time::Duration;

use api::Fields;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{Answer, Authenticated};
use crate::answers::Answers;
use crate::config::{Error, TokenWebhookOptions};
use crate::identity::Identity;
use crate::reviewer::Reviewer;
use crate::webhook::Caller;

/// How long one try may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Tokens that are asked about at the same time: nobody is authenticated yet who asks.
const ASKED_MAX: usize = 100;

pub struct WebhookAuthenticator {
    reviewer: Reviewer,
    answers: Answers<Result<Option<Authenticated>, String>>,
    places: Semaphore,
}

impl WebhookAuthenticator {
    pub fn new(options: &TokenWebhookOptions, caller: &Arc<Caller>) -> Result<WebhookAuthenticator, Error> {
        let version = format!("authentication.k8s.io/{}", options.version);
        let path = &options.config_file;
        let reviewer = Reviewer::new(caller.clone(), path, version, "TokenReview", TIMEOUT)
            .map_err(|source| Error::Webhook { path: path.clone(), source })?;
        let places = Semaphore::new(ASKED_MAX);
        Ok(WebhookAuthenticator { reviewer, answers: Answers::new(options.cache), places })
    }

    /// `implied` are the audiences of a program that names none.
    pub async fn authenticate(&self, token: &str, wanted: &[String], implied: &[String]) -> Answer {
        let key = self.answers.key(token, wanted);
        if let Some(answer) = self.answers.get(&key) {
            return answer.as_ref().clone();
        }
        let Ok(_place) = self.places.acquire().await else { return Ok(None) };
        let status = self.reviewer.ask(&json!({"token": token, "audiences": wanted})).await?;
        let answer = of_status(&status, wanted, implied);
        self.answers.put(key, Arc::new(answer.clone()));
        answer
    }
}

fn of_status(status: &Value, wanted: &[String], implied: &[String]) -> Answer {
    let strings =
        |list: &[Value]| -> Vec<String> { list.iter().filter_map(Value::as_str).map(str::to_owned).collect() };
    let named = strings(status.list("audiences"));
    let got = if named.is_empty() { implied } else { &named };
    let audiences: Vec<String> = wanted.iter().filter(|audience| got.contains(audience)).cloned().collect();
    if audiences.is_empty() {
        return Ok(None);
    }
    if !status.at("authenticated").and_then(Value::as_bool).unwrap_or_default() {
        let error = status.text("error");
        return if error.is_empty() { Ok(None) } else { Err(error.to_owned()) };
    }
    let user = status.part("user");
    let extra = user.at("extra").and_then(|extra| serde_json::from_value(extra.clone()).ok()).unwrap_or_default();
    let identity = Identity {
        name: user.text("username").to_owned(),
        uid: user.text("uid").to_owned(),
        groups: strings(user.list("groups")),
        extra,
    };
    Ok(Some(Authenticated::new(identity, audiences)))
}
