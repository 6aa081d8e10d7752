//! Platforms as their vendors document them, over real HTTP: 到梦空间's opaque cursor, 海康 iSC's and 大华 ICC's pages by number,
//! and a service desk in the manner of a university's open platform.
//!
//! A campus and a moment enter; each list answers with what it holds then, newest version of each record, in its own
//! paging, to who shows the token.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use chrono::{DateTime, NaiveDateTime, TimeDelta};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::campus::Campus;

/// The longest page of a list, as 大华 has it.
pub const PAGE_ROWS_MAX: usize = 10_000;

/// Every platform on one port and a thread of its own; they end with their value.
pub struct Vendors {
    shelf: Arc<Shelf>,
    address: SocketAddr,
    _running: oneshot::Sender<()>,
}

struct Shelf {
    token: String,
    /// The longest page, whatever is asked for.
    page_rows_max: usize,
    /// By `connector/table`.
    lists: Mutex<HashMap<&'static str, Vec<Value>>>,
}

impl Vendors {
    /// Serves nothing yet, at an address such as `127.0.0.1:0`, which is a free port.
    ///
    /// # Errors
    /// The address is taken.
    pub fn start(address: &str, token: &str, page_rows_max: usize) -> Result<Vendors> {
        let shelf = Arc::new(Shelf { token: token.to_string(), page_rows_max, lists: Mutex::default() });
        let listener = TcpListener::bind(address).with_context(|| format!("could not listen at {address}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .route("/activity/getBatchActivities", post(activities))
            .route("/score/getBatchGrowthRecords", post(growth_records))
            .route("/artemis/api/acs/v2/door/events", post(door_events))
            .route(
                "/evo-apigw/evo-accesscontrol/1.0.0/card/accessControl/swingCardRecord/bycondition/combined",
                post(swings),
            )
            .route("/desk/v1/{list}", get(desk))
            .with_state(shelf.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (running, ended) = oneshot::channel();
        std::thread::Builder::new().name("vendors".into()).spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                tokio::select! {
                    _ = axum::serve(listener, router) => {}
                    _ = ended => {}
                }
            });
        })?;
        Ok(Vendors { shelf, address, _running: running })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets the lists hold what they do at `until`.
    pub fn show(&self, campus: &Campus, until: NaiveDateTime) {
        let mut lists = self.shelf.lists.lock().expect("no holder of this lock panics");
        for service in campus.services() {
            let shown = service.shown(until).into_iter().map(|record| record.value.value.clone());
            lists.insert(service.name, shown.collect());
        }
    }
}

type Answer = Result<Json<Value>, StatusCode>;

impl Shelf {
    /// Page `page` of the records of a list that `is_asked` for, to who shows the token.
    fn page(
        &self,
        headers: &HeaderMap,
        list: &str,
        is_asked: impl Fn(&Value) -> bool,
        page: usize,
        rows: usize,
    ) -> Result<Vec<Value>, StatusCode> {
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if shown != Some(format!("Bearer {}", self.token).as_str()) {
            return Err(StatusCode::UNAUTHORIZED);
        }
        let lists = self.lists.lock().expect("no holder of this lock panics");
        let records = lists.get(list).ok_or(StatusCode::NOT_FOUND)?.iter();
        let rows = rows.min(self.page_rows_max);
        Ok(records.filter(|record| is_asked(record)).skip((page - 1) * rows).take(rows).cloned().collect())
    }
}

type Shared = State<Arc<Shelf>>;

async fn activities(State(shelf): Shared, headers: HeaderMap, Json(asked): Json<Value>) -> Answer {
    dream(&shelf, &headers, "second_classroom/activity", &asked)
}

async fn growth_records(State(shelf): Shared, headers: HeaderMap, Json(asked): Json<Value>) -> Answer {
    dream(&shelf, &headers, "second_classroom/activity_participation", &asked)
}

/// 到梦空间: what comes after `updateTime`, which is the last record's, handed back as it was.
fn dream(shelf: &Shelf, headers: &HeaderMap, list: &str, asked: &Value) -> Answer {
    let order = |mark: &str| {
        let (time, id) = mark.split_once('_')?;
        Some((time.to_string(), id.parse::<u64>().ok()?))
    };
    let after = match asked["updateTime"].as_str() {
        Some(mark) => Some(order(mark).ok_or(StatusCode::BAD_REQUEST)?),
        None => None,
    };
    let mark_of = |record: &Value| record["updateTime"].as_str().and_then(order);
    let list = shelf.page(headers, list, |record| mark_of(record) > after, 1, 500)?;
    Ok(Json(json!({ "code": "100", "success": true, "msg": "操作成功", "data": { "list": list } })))
}

/// The longest span of which 海康 iSC tells.
const SPAN_MAX: TimeDelta = TimeDelta::days(93);

/// 海康 iSC: events by the platform's time of receipt, of three months at most.
async fn door_events(State(shelf): Shared, headers: HeaderMap, Json(asked): Json<Value>) -> Answer {
    let text = |name: &str| asked[name].as_str().ok_or(StatusCode::BAD_REQUEST);
    let (since, until) = (text("receiveStartTime")?, text("receiveEndTime")?);
    let time = |text: &str| DateTime::parse_from_rfc3339(text).map_err(|_| StatusCode::BAD_REQUEST);
    if time(until)? - time(since)? > SPAN_MAX {
        return Err(StatusCode::BAD_REQUEST);
    }
    let (page, rows) = numbers(&asked, "pageNo", "pageSize")?;
    let is_asked = |record: &Value| {
        let received = record["receiveTime"].as_str();
        received >= Some(since) && received <= Some(until)
    };
    let list = shelf.page(&headers, "access_hikvision_pull/access_event", is_asked, page, rows)?;
    Ok(Json(json!({ "code": "0", "msg": "success", "data": { "pageNo": page, "pageSize": rows, "list": list } })))
}

/// 大华 ICC: swings by the time they were stored, within a window of swing times that must be named.
async fn swings(State(shelf): Shared, headers: HeaderMap, Json(asked): Json<Value>) -> Answer {
    let text = |name: &str| asked[name].as_str().ok_or(StatusCode::BAD_REQUEST);
    let (first, last) = (text("startSwingTime")?, text("endSwingTime")?);
    let (since, until) = (text("startCreateTime")?, text("endCreateTime")?);
    let (page, rows) = numbers(&asked, "pageNum", "pageSize")?;
    let is_asked = |record: &Value| {
        let (swung, stored) = (record["swingTime"].as_str(), record["createTime"].as_str());
        swung >= Some(first) && swung <= Some(last) && stored >= Some(since) && stored <= Some(until)
    };
    let list = shelf.page(&headers, "access_dahua/access_event", is_asked, page, rows)?;
    Ok(Json(json!({ "success": true, "code": "0", "errMsg": "", "data": { "currentPage": page, "pageData": list } })))
}

/// Number of the page and its rows, both above 0.
fn numbers(asked: &Value, page: &str, rows: &str) -> Result<(usize, usize), StatusCode> {
    let number = |name: &str| asked[name].as_u64().filter(|number| *number > 0).ok_or(StatusCode::BAD_REQUEST);
    Ok((number(page)? as usize, number(rows)? as usize))
}

/// The service desk: `ts` in seconds, 0 is all; marked rows were deleted.
async fn desk(
    State(shelf): Shared,
    Path(list): Path<String>,
    Query(asked): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Answer {
    let number = |name: &str| asked.get(name).and_then(|text| text.parse::<i64>().ok()).ok_or(StatusCode::BAD_REQUEST);
    let (ts, page, rows) = (number("ts")?, number("pageNum")?.max(1) as usize, number("pageSize")? as usize);
    let name = match list.as_str() {
        "cases" => "service_desk/appeal_case",
        "steps" => "service_desk/appeal_step",
        _ => "service_desk/service_transaction",
    };
    let is_asked = |record: &Value| record["updated_at"].as_i64() >= Some(ts);
    let list = shelf.page(&headers, name, is_asked, page, rows)?;
    Ok(Json(json!({ "code": 0, "data": { "rows": list } })))
}
