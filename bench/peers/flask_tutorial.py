"""The three routes as tutorials write them: Flask-SQLAlchemy, model objects turned into dicts, jsonify."""

import os
import uuid
from typing import Any

from flask import Flask, Response, jsonify, request
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db = SQLAlchemy(app)


class Person(db.Model):  # type: ignore[name-defined, misc]  # built at run time by Flask-SQLAlchemy
    """One passenger."""

    __tablename__ = "people"

    id = db.Column(db.Integer, primary_key=True)
    uuid = db.Column(db.Uuid, unique=True, nullable=False, default=uuid.uuid4)
    survived = db.Column(db.Boolean, nullable=False)
    passenger_class = db.Column(db.Integer, nullable=False)
    name = db.Column(db.String, nullable=False)
    sex = db.Column(db.String, nullable=False)
    age = db.Column(db.Float)
    siblings_or_spouses_aboard = db.Column(db.Integer, nullable=False)
    parents_or_children_aboard = db.Column(db.Integer, nullable=False)
    fare = db.Column(db.Float, nullable=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the person in the API's names."""
        return {
            "uuid": str(self.uuid),
            "survived": self.survived,
            "passengerClass": self.passenger_class,
            "name": self.name,
            "sex": self.sex,
            "age": self.age,
            "siblingsOrSpousesAboard": self.siblings_or_spouses_aboard,
            "parentsOrChildrenAboard": self.parents_or_children_aboard,
            "fare": self.fare,
        }


@app.get("/people")
def list_people() -> Response:
    """Return every person in the data set's order."""
    people = Person.query.order_by(Person.id).all()
    return jsonify([person.to_dict() for person in people])


@app.get("/people/<uuid:person_id>")
def read_person(person_id: uuid.UUID) -> Response:
    """Return one person."""
    person = Person.query.filter_by(uuid=person_id).first_or_404()
    return jsonify(person.to_dict())


@app.post("/people")
def create_person() -> tuple[Response, int]:
    """Store one person."""
    data = request.get_json()
    person = Person(
        survived=data["survived"],
        passenger_class=data["passengerClass"],
        name=data["name"],
        sex=data["sex"],
        age=data.get("age"),
        siblings_or_spouses_aboard=data["siblingsOrSpousesAboard"],
        parents_or_children_aboard=data["parentsOrChildrenAboard"],
        fare=data["fare"],
    )
    db.session.add(person)
    db.session.commit()
    return jsonify(person.to_dict()), 201
