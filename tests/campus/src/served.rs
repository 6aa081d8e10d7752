//! What platforms list that are asked over HTTP: 二课, a service desk, and the gates' events as two vendors show them.
//!
//! A campus enters; for each list the records leave in the vendor's shape, with what must become of each.

use std::collections::HashMap;

use chrono::{NaiveDateTime, TimeDelta};
use serde_json::{Value, json};

use crate::campus::Campus;
use crate::clock::{at, dashed, days_before, iso};
use crate::gates::{Direction, Event, EventKind, PersonField, Place};
use crate::random::Random;
use crate::record::{Defect, Fate, Record};

/// The lists of what no other source tells, `connector/table`, and the tables that they fill.
pub const LISTS: [(&str, &str); 5] = [
    ("second_classroom/activity", "student_affairs.activity"),
    ("second_classroom/activity_participation", "student_affairs.activity_participation"),
    ("service_desk/appeal_case", "logistics.appeal_case"),
    ("service_desk/appeal_step", "logistics.appeal_step"),
    ("service_desk/service_transaction", "extension.service_transaction"),
];

/// A record in the vendor's words, and the key by which the truth and the vendor know it.
#[derive(Clone, Debug)]
pub struct Listed {
    pub key: String,
    /// Its place among those of one moment.
    pub place: u64,
    pub value: Value,
}

/// One list of a platform.
pub struct Service {
    /// `connector/table`
    pub name: &'static str,
    pub records: Vec<Record<Listed>>,
}

impl Service {
    /// The newest version of each record before `until`, in the order of their times: what the list shows then.
    pub fn shown(&self, until: NaiveDateTime) -> Vec<&Record<Listed>> {
        let mut newest: HashMap<&str, &Record<Listed>> = HashMap::new();
        for record in self.records.iter().filter(|record| record.at < until) {
            let held = newest.entry(&record.value.key).or_insert(record);
            if held.at <= record.at {
                *held = record;
            }
        }
        let mut shown: Vec<_> = newest.into_values().collect();
        shown.sort_by_key(|record| (record.at, record.value.place));
        shown
    }

    fn add(&mut self, at: NaiveDateTime, key: &str, value: Value) {
        self.put(Record::insert(at, value), key);
    }

    /// A newer version of the record with this key.
    fn update(&mut self, at: NaiveDateTime, key: &str, value: Value) {
        self.put(Record::update(at, value), key);
    }

    fn dead(&mut self, at: NaiveDateTime, defect: Defect, key: &str, value: Value) {
        self.put(Record::dead(at, defect, value), key);
    }

    fn put(&mut self, record: Record<Value>, key: &str) {
        let place = self.records.len() as u64;
        let value = Listed { key: key.to_string(), place, value: record.value.clone() };
        self.records.push(record.with(value));
    }
}

impl Campus {
    /// Every list, each record once for each of its versions.
    pub fn services(&self) -> Vec<Service> {
        let of = |name| Service { name, records: Vec::new() };
        let mut activities = of("second_classroom/activity");
        let mut participations = of("second_classroom/activity_participation");
        self.activities(&mut activities, &mut participations);
        let mut cases = of("service_desk/appeal_case");
        let mut steps = of("service_desk/appeal_step");
        let mut applications = of("service_desk/service_transaction");
        self.cases(&mut cases, &mut steps);
        self.applications(&mut applications);
        let hikvision = self.events("access_hikvision_pull/access_event", hikvision_event);
        let dahua = self.events("access_dahua/access_event", dahua_event);
        vec![activities, participations, cases, steps, applications, hikvision, dahua]
    }

    fn activities(&self, activities: &mut Service, participations: &mut Service) {
        for number in 0..12_u64 {
            let starts = at(days_before(self.plan.day, number * 3), 14, 0, 0);
            let ends = starts + TimeDelta::hours(2);
            let (id, told) = (number + 1001, starts - TimeDelta::days(5));
            let activity = |state: &str, ends: NaiveDateTime, told: NaiveDateTime| {
                json!({
                    "activityId": id, "activityName": format!("第{number}期主题活动"),
                    "categoryName": (["思想成长", "文体活动", "志愿公益", "创新创业"])[number as usize % 4], "typeName": "讲座",
                    "unitType": "学院", "unitId": "01", "place": "D01-P1", "startTime": dashed(starts),
                    "endTime": dashed(ends), "num": "0.25", "status": state, "content": "活动介绍",
                    "updateTime": format!("{}.000000_{id}", dashed(told)),
                })
            };
            activities.add(told, &id.to_string(), activity("报名中", ends, told));
            let over = ends + TimeDelta::minutes(10);
            activities.update(over, &id.to_string(), activity("已完结", ends, over));
            self.participants(id, starts, ends, participations);
        }
        for index in 0..self.plan.dead_of_each_kind() {
            let (told, id) = (at(days_before(self.plan.day, 2), 8, 0, index as u32 % 60), 9001 + index);
            let mut value = activities.records[0].value.value.clone();
            value["activityId"] = json!(id);
            value["endTime"] = json!("2001-01-01 00:00:00");
            value["updateTime"] = json!(format!("{}.000000_{id}", dashed(told)));
            activities.dead(told, Defect::ActivityBackwards, &id.to_string(), value);
        }
    }

    /// Growth records: who took part, a hundred of them told in one moment (L1), and the one that is taken back later (L13).
    fn participants(&self, activity: u64, starts: NaiveDateTime, ends: NaiveDateTime, to: &mut Service) {
        let mut random = Random::new(self.plan.seed, "participants", activity);
        let told = ends + TimeDelta::minutes(30);
        for (index, student) in self.students.iter().enumerate().filter(|_| random.chance(120)).take(100) {
            let id = activity * 1_000_000 + index as u64;
            let record = |state: &str, hours: &str, told: NaiveDateTime| {
                json!({
                    "identificationCode": format!("{id:032x}"), "studentNo": student.student_no,
                    "studentName": student.name, "sex": student.sex - 1, "activityId": activity, "chanel": "活动",
                    "role": if index % 9 == 0 { "组织者" } else { "参与者" }, "startTime": dashed(starts),
                    "endTime": dashed(ends), "hours": hours, "num": "0.25", "tradeStatus": state, "position": "30.27,120.15",
                    "updateTime": format!("{}.291376_{id}", dashed(told)),
                })
            };
            let key = id.to_string();
            if self.plan.dead_of_each_kind() > 0 && to.records.is_empty() {
                to.dead(told, Defect::ParticipationHours, &key, record("成功", "999", told));
                continue;
            }
            to.add(told, &key, record("成功", "2.00", told));
            if index % 25 == 7 {
                let back = told + TimeDelta::hours(4);
                to.update(back, &key, record("退回", "2.00", back));
            }
        }
    }

    fn cases(&self, service: &mut Service, steps: &mut Service) {
        let channels = ["校长信箱", "心理热线", "后勤热线", "网上平台", "辅导员"];
        let subjects = ["宿舍", "食堂", "教学", "安全", "网络", "收费"];
        let count = (self.students.len() / 20).max(10);
        for number in 0..count {
            let mut random = Random::new(self.plan.seed, "case", number as u64);
            let received = at(days_before(self.plan.day, random.between(1, 25) as u64), 9, number as u32 % 60, 0);
            let [assigned, replied, asked, due] = [2, 30, 50, 72].map(|hours| received + TimeDelta::hours(hours));
            let person = &self.students[random.index(self.students.len())].student_no;
            let case = |is_over: bool, replied: NaiveDateTime, changed: NaiveDateTime| {
                let when_over = |value: Value| if is_over { value } else { Value::Null };
                json!({
                    "case_no": format!("SQ{number:06}"), "channel": channels[number % 5], "subject": subjects[number % 6],
                    "applicant_no": if number % 7 == 0 { "" } else { person.as_str() }, "building": "D01 ", "text": "诉求内容",
                    "received_at": dashed(received), "assigned_at": dashed(assigned), "unit": "A3", "due_at": dashed(due),
                    "replied_at": when_over(json!(dashed(replied))), "visited_at": when_over(json!(dashed(asked))),
                    "satisfied": when_over(json!(number % 4 != 0)), "reopened": 0,
                    "closed_at": when_over(json!(dashed(asked))), "deleted_mark": 0, "updated_at": unix(changed),
                })
            };
            let key = format!("SQ{number:06}");
            service.add(assigned, &key, case(false, replied, assigned));
            service.update(asked, &key, case(true, replied, asked));
            self.steps(
                number,
                [("受理", received), ("转办", assigned), ("答复", replied), ("回访", asked), ("办结", asked)],
                steps,
            );
            if number < self.plan.dead_of_each_kind() {
                let mut broken = case(true, received - TimeDelta::days(1), asked);
                broken["case_no"] = json!(format!("SQX{number:05}"));
                service.dead(asked, Defect::AppealRepliedEarly, &format!("SQX{number:05}"), broken);
            }
        }
    }

    /// The steps of a case, each told when it was made, with a remark that nobody may take in.
    fn steps(&self, case: usize, made: [(&str, NaiveDateTime); 5], service: &mut Service) {
        for (step, (action, made)) in made.into_iter().enumerate() {
            let record = |step: usize| {
                json!({
                    "case_no": format!("SQ{case:06}"), "step": step, "action": action, "made_at": dashed(made),
                    "operator": self.staff[case % self.staff.len()].staff_no, "unit": "A3", "remark": "办理意见",
                    "updated_at": unix(made),
                })
            };
            service.add(made, &format!("SQ{case:06}/{step}"), record(step + 1));
            if step == 0 && case < self.plan.dead_of_each_kind() {
                service.dead(made, Defect::AppealStepNumber, &format!("SQ{case:06}/x"), record(0));
            }
        }
    }

    /// Applications; one that is withdrawn before the day stays listed with a mark, which deletes it here (L13).
    fn applications(&self, service: &mut Service) {
        for (index, student) in self.students.iter().enumerate().filter(|(index, _)| index % 8 == 3) {
            let submitted = at(days_before(self.plan.day, 1 + index as u64 % 9), 10, index as u32 % 60, 0);
            let (finished, key) = (submitted + TimeDelta::hours(20), format!("YW{index:07}"));
            let application = |done: Option<NaiveDateTime>, rating: u32, mark: u8, changed: NaiveDateTime| {
                json!({
                    "id": format!("YW{index:07}"), "item": "ZDZM", "applicant_no": student.student_no,
                    "channel": (["PC", "APP", "自助终端"])[index % 3], "submitted_at": dashed(submitted),
                    "finished_at": done.map(dashed), "due_at": dashed(submitted + TimeDelta::days(3)), "rating": rating,
                    "form": "表单内容", "deleted_mark": mark, "updated_at": unix(changed),
                })
            };
            service.add(submitted, &key, application(None, 5, 0, submitted));
            let (fate, mark) = if index % 40 == 35 { (Fate::Deletes, 1) } else { (Fate::Lands, 0) };
            let value = application(Some(finished), 4, mark, finished);
            service.put(Record { fate, ..Record::update(finished, value) }, &key);
            if service.records.len() == 2 && self.plan.dead_of_each_kind() > 0 {
                let mut broken = application(Some(finished), 9, 0, finished);
                broken["id"] = json!("YWX");
                service.dead(finished, Defect::ServiceRating, "YWX", broken);
            }
        }
    }

    /// The gates' events as a list, where each is once.
    fn events(&self, name: &'static str, shape: fn(&Campus, usize, &Record<Event>) -> Value) -> Service {
        let mut service = Service { name, records: Vec::new() };
        for record in self.gates.events.iter().filter(|record| record.fate != Fate::Repeat) {
            let number = service.records.len();
            service.put(record.with(shape(self, number, record)), &number.to_string());
        }
        service
    }

    pub(crate) fn number_in(&self, event: &Event) -> &str {
        match event.person {
            PersonField::Student(index) => &self.students[index as usize].student_no,
            PersonField::Zero => "0",
            PersonField::Empty => "",
        }
    }
}

fn unix(time: NaiveDateTime) -> i64 {
    (time - TimeDelta::hours(8)).and_utc().timestamp()
}

/// 海康 iSC, 查询门禁点事件 v2. The door's serial number is not in it.
fn hikvision_event(campus: &Campus, number: usize, record: &Record<Event>) -> Value {
    let event = &record.value;
    let device = &campus.gates.devices[event.device as usize].value;
    let in_out = match (device.place, event.direction) {
        (Place::LibraryIn | Place::LibraryOut, _) | (_, Direction::Unknown) => -1,
        (_, Direction::In) => 1,
        (_, Direction::Out) => 0,
    };
    let is_missing = record.defect() == Some(Defect::EventDeviceMissing);
    let mut random = Random::new(campus.plan.seed, "event id", number as u64);
    json!({
        "eventId": format!("{:016x}{:016x}", random.next(), random.next()), "eventName": "acs.acs.eventType",
        "eventTime": iso(event.at), "receiveTime": iso(record.at), "eventType": event.kind.code(),
        "personId": format!("p{number}"), "jobNo": campus.number_in(event), "certNo": "110105194912310021",
        "cardNo": event.card.map_or(String::new(), |card| format!("{card:010}")),
        "doorIndexCode": if is_missing { "" } else { device.index_code.as_str() }, "doorName": device.name,
        "doorRegionIndexCode": format!("region-{}", device.building), "inAndOutType": in_out,
        "picUri": format!("/pic?face={number:08x}"), "identityCardUri": "", "svrIndexCode": "b4238ecc",
        "devIndexCode": device.index_code, "devName": device.name,
    })
}

/// 大华 ICC, 刷卡记录分页查询: 1 in, 2 out, 3 both; no totals.
fn dahua_event(campus: &Campus, number: usize, record: &Record<Event>) -> Value {
    let event = &record.value;
    let device = &campus.gates.devices[event.device as usize].value;
    let direction = match (device.place, event.direction) {
        (Place::LibraryIn | Place::LibraryOut, _) | (_, Direction::Unknown) => 3,
        (_, Direction::In) => 1,
        (_, Direction::Out) => 2,
    };
    let code = format!("10000{:02}", event.device);
    let is_missing = record.defect() == Some(Defect::EventDeviceMissing);
    let open_type = match event.kind {
        EventKind::FacePassed => 61,
        EventKind::NoPermission | EventKind::UnknownCard => 52,
        _ => 51,
    };
    json!({
        "id": number + 1, "deviceCode": if is_missing { "" } else { code.as_str() }, "deviceName": device.name,
        "channelCode": format!("{code}$7$0$0"), "channelName": device.name, "personCode": campus.number_in(event),
        "personName": "某某", "paperNumber": "110105194912310021",
        "cardNumber": event.card.map_or(String::new(), |card| format!("{card:08X}")), "swingTime": dashed(event.at),
        "createTime": dashed(record.at), "openType": open_type, "openResult": u8::from(event.kind.granted()),
        "enterOrExit": direction, "recordImage": format!("/image/{number}.jpg"),
    })
}
