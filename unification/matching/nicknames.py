"""Which short names are the same first name? The usual ones in English, each as the name that it stands for."""

from __future__ import annotations

_GROUPS = """
abigail abby abbie gail; abraham abe bram; albert al bert; alexander alex alec sandy xander; alexandra lexi sandra;
alfred fred alf alfie; amanda mandy; andrew andy drew; angela angie; anne ann anna annie nan nancy; anthony tony;
arthur art artie; barbara barb barbie babs; beatrice bea; benjamin ben benny benji; bernard bernie; bradley brad;
caroline carolyn carrie; catherine katherine kathryn cathy kathy kate katie kat kitty cat kay katharine; charles
charlie chuck chas; charlotte lottie char; christina christine chris tina christy kristin kristina; christopher
topher kit; clifford cliff; constance connie; cynthia cindy; daniel dan danny; david dave davey; deborah debra deb
debbie; dennis denny; donald don donnie; dorothy dot dottie dolly; douglas doug; edward ed eddie ted teddy ned;
edwin; eleanor ellie nell nora elle; elizabeth liz lizzie beth betty betsy eliza elisabeth libby bess lisa; emily em
emmy; eugene gene; evelyn evie; florence flo flossie; frances fran frannie; francis frank frankie; franklin;
frederick freddie freddy; gabriel gabe; gabrielle gabby; geoffrey jeffrey jeff geoff; george georgie; gerald gerry
jerry; gregory greg; harold hal harry; helen nellie; henry hank; howard howie; isabella isabel bella izzy isabelle;
jacob jake; jacqueline jackie; james jim jimmy jamie jem; janet jan; jason jay; jeremy jem; jennifer jen jenny jenn;
jessica jess jessie; joan joanie; john jack johnny jon johnnie; jonathan jonny; joseph joe joey jo; joshua josh;
judith judy; julia julie; katelyn; kenneth ken kenny; kimberly kim; larry lawrence laurence; leonard leo len lenny;
leslie les; lillian lily lilly; louis lou louie; louise; lucille lucy; madeline maddie; margaret maggie meg peggy
marge margie greta madge peg; martha; martin marty; mary molly polly mamie; matilda tilda tilly; matthew matt;
maxwell max; maximilian; melissa mel missy; michael mike mick micky mickey; michelle shelly; mitchell mitch;
nathaniel nathan nate nat; nicholas nick nicky nico; nicole nikki; olivia liv livvy; oliver ollie; pamela pam;
patricia pat patty tricia trish; patrick paddy; paul pauly; peter pete; philip phil phillip; phyllis; rachel rae;
raymond ray; rebecca becky becca; richard rick ricky dick rich richie; robert rob bob bobby robbie; roger rodge;
ronald ron ronnie; rosemary rose rosie; russell russ; samantha sam sammy; samuel; sarah sally sadie sara; sharon
shari; sophia sophie; stanley stan; stephanie steph; stephen steven steve; stewart stuart stu; susan sue susie
suzanne suzy; sylvester; terence terry; theodore theo; theresa teresa tess terri; thomas tom tommy; timothy tim
timmy; valerie val; vanessa; veronica ronnie; victor vic; victoria vicky vicki tori; vincent vince vinny; virginia
ginny; walter walt wally; wesley wes; william will bill billy willie liam; winifred winnie; zachary zach zack
"""


def canonical() -> dict[str, str]:
    """Short name -> name; the first group that has it counts. A name that stands for itself is left out."""
    found: dict[str, str] = {}
    for group in _GROUPS.split(";"):
        name, *short = group.split()
        for one in short:
            found.setdefault(one, name)
    return {short: name for short, name in found.items() if name not in found and short != name}
